"""Checks: arguments of public functions and JSON files, which may be anything.

In goes what a user gave; out comes the same as a plain value, or one line that says what is wrong.
Knows nothing of what it means.
"""

"""Report: tables and pictures for people, drawn with rich.

In go plain numbers: the dictionaries that ``--json`` prints, and columns; out come renderables.
Knows nothing of plans, files or the command line.
"""

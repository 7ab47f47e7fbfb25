"""Kernels: numeric loops compiled with numba, and where their machine code is kept.

Nothing here knows what is computed.
"""

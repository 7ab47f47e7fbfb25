"""Splitting: outliers leave their subtree, so that the sorted leaves have monotone density.

In goes a prefix tree with its annotations; out comes another one (paper 5.4, algorithm 2).
"""

"""Measurements of a GPU by itself: kernels, their launches, and how well they overlap.

A process of its own (``python -m blendplan.proving.gpu``), so that the GPU is free again before an
engine starts. Out come tables that `blendplan.cost.calibration` reads, and JSON. The only place
that imports torch for itself; nothing else of the package imports these files but `known_gpu` and
`sections`, which need none.
"""

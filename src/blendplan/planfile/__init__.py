"""Plan file: an ordered schedule with memory partitions, one Arrow file.

In go requests and a simulated run; out comes a `Plan`, and back from it a policy or a simulation.
It is the only door between planning and running. Knows no real engine.
"""

"""Output lengths: how many tokens each request will generate, and how sure that is.

In go `Requests`, their tree and whatever is known (stated lengths, samples, earlier results); out
comes `Lengths`. Knows nothing of costs.
"""

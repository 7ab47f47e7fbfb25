"""Hardware: GPUs, models, how much KV cache fits, and the limits of an engine.

In go names, profiles and ``config.json`` files; out come frozen specifications. Knows nothing of
requests or of time.
"""

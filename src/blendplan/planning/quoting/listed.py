"""`LISTED`: what a quote takes several values of; importable without numpy."""

LISTED = (
    "gpu",
    "model",
    "tp",
    "replicas",
    "max_num_batched_tokens",
    "max_num_seqs",
    "kv_dtype",
)
"""Names of arguments of `plan` that may have several values."""

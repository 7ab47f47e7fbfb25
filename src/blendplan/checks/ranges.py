"""`RANGES`: the ranges of whole numbers that the library and the command line share."""

from collections.abc import Mapping

# Least and most. Those that tables are made for are bounded by what engines take with room to
# spare, since a slip of the finger would otherwise fill the memory of this machine.
RANGES: Mapping[str, tuple[int, int]] = {
    "tp": (1, 1024),  # more GPUs than one engine spans
    "replicas": (1, 4096),  # more engines than a job is divided among
    "processes": (1, 1024),  # more cores than a machine has
    "kv_tokens": (1, 10**12),  # a hundred times the memory of any machine
    "max_num_seqs": (1, 1 << 16),  # a price is worked out for each
    "max_num_batched_tokens": (1, 1 << 20),  # a price is worked out for each
    "max_model_len": (1, 1 << 30),  # a hundred times the longest context of any model
    "block_size": (1, 1 << 16),  # longer than any prompt worth sharing in blocks
    "seed": (0, (1 << 63) - 1),  # as Arrow and numpy store it
    "effort": (0, 2),
    "limit": (1, (1 << 63) - 1),
    "max_tokens": (1, 1_000_000_000),  # as many as a request may state
    "replica": (0, 4095),
    "replicas_max": (1, 4096),
    "gpus_per_replica": (0, 1024),
    "shards": (1, 99_999),  # whose numbers have five digits
    "repeats": (1, 100),  # more runs than anybody waits for
    "retries": (0, 1000),  # a request that fails so often will not succeed
}

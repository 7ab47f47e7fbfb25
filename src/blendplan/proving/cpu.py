"""How engines are started where there is no GPU: the model is small, the scheduling is real."""

import os
from typing import Any

# Threads that wait for each other take longer over a small model than one does.
_ALONE = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
_ENVIRONMENT = {
    "vllm": {
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        # The engine's process runs the model itself; on a CPU, vLLM starts one more otherwise.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    },
    "sglang": {"SGLANG_USE_CPU_ENGINE": "1"},
}
_ARGUMENTS: dict[str, dict[str, Any]] = {
    "vllm": {"enforce_eager": True, "gpu_memory_utilization": 0.2},
    "sglang": {
        "device": "cpu",
        "dtype": "bfloat16",
        "attention_backend": "torch_native",
        "sampling_backend": "pytorch",
        "grammar_backend": "none",
        "disable_cuda_graph": True,
        "mem_fraction_static": 0.3,
    },
}
BLOCK_SIZES = {"vllm": 32, "sglang": 1}
"""Tokens of a block; vLLM's attention on a CPU takes no smaller ones."""


def prepare_environment(engine: str) -> None:
    """Set what an engine needs on a CPU, where the user has not set it."""
    for name, value in (_ALONE | _ENVIRONMENT.get(engine, {})).items():
        os.environ.setdefault(name, value)


def arguments(engine: str) -> dict[str, Any]:
    """The engine's own arguments for a CPU."""
    return dict(_ARGUMENTS.get(engine, {}))

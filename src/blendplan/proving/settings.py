"""`ProofSettings`: what a proof is of, and within which limits it runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from blendplan.checks.arguments import number, text, whole
from blendplan.engines.registry import ENGINES
from blendplan.errors import BlendplanError

MOST_REQUESTS = 1_000_000


@dataclass(frozen=True)
class ProofSettings:
    """What is measured, on what.

    Attributes:
        engine: name of a real engine.
        model: model whose steps are predicted: a published name, or a folder.
        gpu: name in the catalogue; None where steps alone tell what the machine does, as on a CPU.
        load: model as the engine knows it; ``model`` without it.
        minutes: how long one call may take; parts that do not fit are left for the next.
        repeats: how often each order runs.
        requests: of each workload; None for as many as fit the time.
        kv_tokens: size of the KV cache; None for what the engine has.
        max_num_seqs, block_size, max_model_len, tp: limits of the engine, by vLLM's names.
        batched_tokens: values of ``max_num_batched_tokens`` of which each order gets its best.
        engine_args, flags: of the engine, as of `replay`.
        seed: of all jobs.
        longest: tokens of the longest request of a job; None for as long as the limits allow.
    """

    engine: str
    model: str
    gpu: str | None = None
    load: str | None = None
    minutes: float = 30.0
    repeats: int = 3
    requests: int | None = None
    kv_tokens: int | None = None
    max_num_seqs: int = 256
    block_size: int = 16
    max_model_len: int = 8192
    tp: int = 1
    batched_tokens: tuple[int, ...] = (2048, 8192)
    engine_args: Mapping[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    seed: int = 0
    longest: int | None = None

    def __post_init__(self) -> None:
        text("engine", self.engine, "give the name of an engine")
        number("minutes", self.minutes, 0.0, 1e6, above_least=True)
        whole("repeats", self.repeats)
        if self.requests is not None:
            whole("requests", self.requests, 2, MOST_REQUESTS)
        if not self.batched_tokens:
            raise BlendplanError("batched_tokens is empty; give at least one number of tokens")
        for tokens in self.batched_tokens:
            whole("max_num_batched_tokens", tokens)
        if self.gpu is None and self.kv_tokens is None:
            raise BlendplanError(
                "without a GPU the size of the KV cache must be given; add --kv-tokens N, such as "
                "8192"
            )

    @property
    def on_cpu(self) -> bool:
        """Whether there is no GPU."""
        return self.gpu is None

    @property
    def limits(self) -> dict[str, Any]:
        """Limits of all runs, by the names of `plan`, with the largest step."""
        return {
            "tp": self.tp,
            "max_num_seqs": self.max_num_seqs,
            "max_num_batched_tokens": max(self.batched_tokens),
            "block_size": self.block_size,
        }

    @property
    def identity(self) -> dict[str, Any]:
        """What must not change between calls for one folder, JSON values by what users know."""
        names = ("engine", "model", "load", "gpu", "kv_tokens", "max_num_seqs", "block_size")
        own = {name: getattr(self, name) for name in (*names, "max_model_len", "tp", "seed")}
        return own | {
            "batched_tokens": list(self.batched_tokens),
            "engine_args": dict(self.engine_args),
            "flags": list(self.flags),
        }


_ON_CPU: dict[str, Any] = {
    "kv_tokens": 8192,
    "max_num_seqs": 32,
    "batched_tokens": (256, 512),
}


def proof_settings(
    engine: str, model: str, *, gpu: str | None = None, **given: Any
) -> ProofSettings:
    """Settings of which those that are not given, or None, are what suits a GPU or a CPU.

    Args:
        engine, model, gpu, given: as of `ProofSettings`.
    """
    usual: dict[str, Any] = {}
    if gpu is None:
        usual = _ON_CPU | {"block_size": ENGINES.get(engine).on_cpu.block_size}
    chosen = {name: value for name, value in given.items() if value is not None}
    return ProofSettings(engine, model, gpu, **(usual | chosen))

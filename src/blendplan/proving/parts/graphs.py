"""CUDA graphs: what padding to a captured size costs, and what graphs spare in launches."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from blendplan.errors import BlendplanError
from blendplan.proving.bench import Bench
from blendplan.requests.read import read_requests

STEPS = 64
PROMPT_TOKENS = 128
_MOST_SIZES = 3


def measure(bench: Bench) -> dict[str, Any]:
    """Decode at captured sizes, one above them, and without graphs.

    Returns:
        ``sizes``: by captured size, seconds of a step that fits it, of one with a sequence more,
        which is padded to the next size, and of one without graphs.

    Raises:
        BlendplanError: the engine captured no graphs.
    """
    first = _run(bench, 1, "graphs-start")
    captured = [size for size in first["graph_sizes"] if 8 <= size < bench.settings.max_num_seqs]
    if not captured:
        raise BlendplanError("the engine captured no CUDA graphs")
    chosen = _spread(captured)
    with_graphs = {size: [_decode_s(bench, size + more) for more in (0, 1)] for size in chosen}
    eager = {size: _decode_s(bench, size, eager=True) for size in chosen}
    return {
        "captured": captured,
        "sizes": [
            {
                "size": size,
                "fits_s": fits_s,
                "padded_s": padded_s,
                "eager_s": eager[size],
                "padding_share": padded_s / fits_s - 1.0,
                "launch_share": eager[size] / fits_s - 1.0,
            }
            for size, (fits_s, padded_s) in with_graphs.items()
        ],
    }


def _spread(sizes: Sequence[int]) -> list[int]:
    """A small, a middle and a large one."""
    places = np.linspace(0, len(sizes) - 1, min(_MOST_SIZES, len(sizes))).astype(int)
    return [sizes[place] for place in places]


def _decode_s(bench: Bench, sequences: int, *, eager: bool = False) -> float:
    """Median seconds of a step that decodes so many sequences."""
    name = f"graphs-{sequences}{'-eager' if eager else ''}"
    _run(bench, sequences, name, {"enforce_eager": True} if eager else {})
    steps = pq.read_table(bench.step_log(name))
    alone = (steps["prefill_tokens"].to_numpy() == 0) & (
        steps["decode_tokens"].to_numpy() == sequences
    )
    if not alone.any():
        raise BlendplanError(f"no step decoded {sequences} sequences; nothing to compare")
    return float(np.median(steps["time_s"].to_numpy()[alone]))


def _run(
    bench: Bench, sequences: int, name: str, engine_args: dict[str, Any] | None = None
) -> dict[str, Any]:
    rng = np.random.default_rng(sequences)
    path = bench.folder.file(f"{name}.requests.jsonl")
    lines = [
        json.dumps(
            {
                "prompt_token_ids": rng.integers(10, bench.model.vocab, PROMPT_TOKENS).tolist(),
                "output_tokens": STEPS,
            }
        )
        for _ in range(sequences)
    ]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    made = bench.plan(read_requests(path), "fcfs")
    return bench.run(made, name, engine_args=engine_args)

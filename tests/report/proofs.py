"""A made-up proof with all parts, as a machine with GPUs would write it."""

from collections.abc import Sequence
from typing import Any

from blendplan.proving.contradictions import agreement, contradictions
from blendplan.proving.parts.runs import DRAWN

ORDERS = ("input", "dfs", "blendserve", "blend", "blendserve, sample", "blend, sample")


def proof_values(*, done: bool = True) -> dict[str, Any]:
    """Values of a ``proof.json``; without ``done`` nothing was measured."""
    runs = [run for number, order in enumerate(ORDERS) for run in _runs(order, 10.0 - number)]
    left = {"state": "left", "why": "the time was over; the same command goes on"}
    parts: dict[str, Any] = dict.fromkeys(("kernels", "steps", "graphs", "overlap", "runs"), left)
    if done:
        found = {
            "kernels": _kernels(),
            "steps": _steps(),
            "graphs": _graphs(),
            "overlap": _overlap(),
            "runs": {"workloads": {"memory": _workload(runs)}},
        }
        parts = {
            name: {"state": "done", "seconds": 60.0, "values": values}
            for name, values in found.items()
        }
    return {
        "format": "blendplan-proof-1",
        "identity": {"engine": "vllm", "model": "tiny <&>", "gpu": "l4", "max_num_seqs": 256},
        "machine": {
            "date": "2026-01-02",
            "cpu": "a processor",
            "cores": 8,
            "versions": {"blendplan": "0.1.0"},
            "gpu_driver": {"driver": "600.1"},
        },
        "parts": parts,
        "runs": runs if done else [],
        "kv_tokens": 100_000,
    }


def proof_told(*, done: bool = True) -> dict[str, Any]:
    """The same with what it says of the model, as the command tells it."""
    values = proof_values(done=done)
    found = {"contradictions": contradictions(values), "agreement": agreement(values["runs"])}
    return values | found | {"folder": "proof"}


def _runs(order: str, measured_s: float) -> Sequence[dict[str, Any]]:
    curve = {"end_s": [1.0, 5.0, measured_s], "kv_tokens": [10.0, 900.0, 0.0]}
    kinds = {name: {"measured_s": 0.3 * measured_s} for name in ("decode", "prefill", "mixed")}
    return [
        {
            "workload": "memory",
            "order": order,
            "repeat": repeat,
            "batched_tokens": 2048,
            "lengths": "sample" if "sample" in order else "known",
            "stock": order in ("input", "dfs"),
            "requests": 500,
            "failed": 0,
            "measured_s": measured_s + 0.1 * repeat,
            "predicted_s": measured_s,
            "steps": 100,
            "planned_steps": 100,
            "preemptions": 2,
            "prefix_sharing": 0.4,
            "planned_prefix_sharing": 0.5,
            "kv_tokens": 100_000,
            "engine": "vllm 0.32.0",
            "priced": {"kinds": kinds},
            "course": {"planned": curve, "measured": curve}
            if repeat == 1 and order in DRAWN
            else None,
        }
        for repeat in (1, 2, 3)
    ]


def _workload(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    gain = {"median": 0.12, "least": 0.08, "most": 0.15, "predicted": 0.2}
    unpredicted = gain | {"predicted": None}
    orders = {
        order: {
            "lengths": "sample" if "sample" in order else "known",
            "stock": order in ("input", "dfs"),
            "batched_tokens": 2048,
            "measured_s": [run["measured_s"] for run in runs if run["order"] == order],
            "predicted_s": 9.0,
            "preemptions": 2,
            "prefix_sharing": 0.4,
            "gain": {
                base: unpredicted if "sample" in order else gain
                for base in ("input", "dfs")
                if base != order
            },
        }
        for order in ORDERS
    }
    return {"requests": 500, "orders": orders}


def _steps() -> dict[str, Any]:
    kind = {
        "steps": 40,
        "time_share": 0.3,
        "total_error": 0.3,
        "median_error": 0.1,
        "predicted_s": 1.3,
        "measured_s": 1.0,
    }
    none = kind | {"steps": 0, "total_error": None, "median_error": None}
    priced = {"kinds": {"decode": kind, "prefill": none, "mixed": kind}}
    return {"held_out": priced, "catalogue": priced, "between": {"whole_s": 9.0, "share": 0.02}}


def _kernels() -> dict[str, Any]:
    fit = {"operator": "gemm", "dtype": "bf16", "kernel": "torch.mm", "rows": 500}
    ways = {"streams": {"q": 1.1, "q_p5": 1.0, "q_p95": 1.2, "cases": 30, "mape": 4.0}}
    return {
        "fits": [
            fit | {"error_share": 0.05, "shipped_error_share": 0.4},
            fit | {"kernel": "other", "error_share": 0.05, "shipped_error_share": None},
        ],
        "overlap": {"exponent": ways},
    }


def _overlap() -> dict[str, Any]:
    beside = {
        "alone_s": {"exams": 3.0, "chats": 4.0},
        "together_s": 6.0,
        "one_engine_s": 6.5,
        "q": 1.2,
    }
    return {"side_by_side": beside, "pdmux": {"off_s": 5.0, "on_s": 4.0}}


def _graphs() -> dict[str, Any]:
    size = {"size": 64, "fits_s": 0.01, "padded_s": 0.011, "eager_s": 0.02}
    return {"sizes": [size | {"padding_share": 0.1, "launch_share": 1.0}]}

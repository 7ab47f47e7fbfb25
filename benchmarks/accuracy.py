"""How far the calibrated cost model is from measured kernels.

    python benchmarks/accuracy.py --data DIR [--json] [--shipped] [--operators NAMES]
        [--kernels] [--plots DIR] [--folds N] [--rows N] [--jobs N]

DIR holds the tables that `blendplan calibrate --kernels` reads, itself or in a folder `kernels`.
Without `--shipped`, parameters are fitted by cross-validation: whole (n, k) shapes, pairs of head
counts and message sizes are left out together, and predicted by what the others teach; with the
default `--folds` and `--rows` that takes a quarter of an hour on two cores. With `--shipped`, the
parameters in the package are evaluated, nothing is fitted, in some seconds.

`rows` are what the goals speak of: GEMMs with at least 1,024 input and output features and random
operands, decode attention beyond 1.5 times the L2 cache, prefill attention of 512 tokens and
more, all-reduces within a node, and the summed linear layers of Llama-3-8B, which no fit has seen.
`other_rows` are the summed linear layers of other models. `--kernels` splits rows by kernel.
"""

import argparse
import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.accuracy_outcome import Outcome
from benchmarks.cross_validation import Validation

from blendplan.cost.calibration.kernel_tables import (
    KV_BYTES,
    KernelRows,
    catalogue_name,
    linear_rows,
    table_folder,
)
from blendplan.cost.calibration.operator_fits import BITS, Fit, fits, foretell, learn
from blendplan.cost.operators.gemm import GemmModel, GemmParameters
from blendplan.errors import BlendplanError
from blendplan.hardware.gpu import GpuSpec
from blendplan.hardware.lookup import gpu_spec

GOALS = {
    "gemm": 8.0,
    "decode_attention": 5.0,
    "context_attention": 8.0,
    "all_reduce": 10.0,
    "linear_layer_sum": 8.0,
}
GOAL_L40S_GEMM = 12.0
# Reports keep the tables' name for prefill attention.
REPORTED = {"prefill_attention": "context_attention"}
GOAL_MODEL = "Meta-Llama-3-8B"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of measured tables")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--shipped", action="store_true", help="evaluate the shipped parameters")
    parser.add_argument("--operators", help="only these, separated by commas")
    parser.add_argument("--kernels", action="store_true", help="a row for each kernel")
    parser.add_argument(
        "--plots", type=Path, help="draw predicted against measured into this folder"
    )
    parser.add_argument("--folds", type=int, default=5, help="parts to leave out in turn")
    parser.add_argument("--rows", type=int, default=700, help="rows that each fit learns from")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="fits at the same time")
    arguments = parser.parse_args()
    cross = None
    if not arguments.shipped:
        cross = Validation(arguments.folds, arguments.rows, arguments.jobs)
    wanted = arguments.operators.split(",") if arguments.operators else list(GOALS)
    if unknown := [name for name in wanted if name not in GOALS]:
        parser.error(f"unknown operator {unknown[0]!r}: known are {', '.join(GOALS)}")
    try:
        outcomes = list(_outcomes(arguments.data, wanted, cross))
    except BlendplanError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    split = arguments.kernels
    report = {
        "rows": _report([each for each in outcomes if _has_goal(each)], by_kernel=split),
        "other_rows": _report([each for each in outcomes if not _has_goal(each)], by_kernel=split),
    }
    if arguments.json:
        print(json.dumps(report))
    else:
        print(table(report["rows"]))
        print(table(report["other_rows"]))
    if arguments.plots:
        from benchmarks.accuracy_plots import draw

        note = "shipped parameters" if arguments.shipped else "parameters fitted to other groups"
        draw([outcome for outcome in outcomes if _has_goal(outcome)], arguments.plots, note)
    return 0


def _outcomes(data: Path, wanted: list[str], cross: "Validation | None") -> Iterator[Outcome]:
    """Shipped parameters without ``cross``."""
    chosen = [fit for fit in fits(data) if REPORTED.get(fit.operator, fit.operator) in wanted]
    predictions = map(_by_shipped, chosen) if cross is None else cross.predict(chosen)
    for fit, predicted_s in zip(chosen, predictions, strict=True):
        if predicted_s is None:
            continue
        operator = REPORTED.get(fit.operator, fit.operator)
        known = np.isfinite(predicted_s)
        if known.any():
            times = predicted_s[known], fit.rows.time_s[known], roofline_s(fit)[known]
            yield Outcome(operator, fit.gpu, fit.dtype, fit.path[-1], *times)
    if "linear_layer_sum" in wanted:
        yield from _layer_sums(data, shipped=cross is None)


def _by_shipped(fit: Fit) -> NDArray[np.float64] | None:
    """Predictions of the parameters in the package; None for a kernel that it does not know."""
    place: Any = gpu_spec(fit.gpu).fitted.get(fit.operator, {})
    for step in fit.path:
        place = place.get(step, {})
    return foretell(fit, place, fit.rows) if place else None


def _layer_sums(data: Path, *, shipped: bool) -> Iterator[Outcome]:
    """Summed GEMMs of one layer, by parameters that only GEMM tables have taught."""
    rows = linear_rows(table_folder(data))
    if rows is None:
        return
    for label in sorted(set(rows["gpu"])):
        name = catalogue_name(label)
        parameters = _gemm_parameters(name, data, shipped=shipped) if name else None
        if name is None or parameters is None:
            continue
        gemm = GemmModel(gpu_spec(name), "bf16", parameters)
        of_gpu = rows.where(rows["gpu"] == label)
        for model in sorted(set(of_gpu["model"])):
            chosen = of_gpu.where(of_gpu["model"] == model)
            predicted_s = gemm.predict(chosen["num_tokens"], chosen["n"], chosen["k"])
            plain_s = _gemm_roofline_s(gpu_spec(name), chosen["num_tokens"], chosen, 16.0)
            yield Outcome(
                "linear_layer_sum", name, "fp16", model, *_summed(chosen, predicted_s, plain_s)
            )


def _gemm_parameters(name: str, data: Path, *, shipped: bool) -> GemmParameters | None:
    if shipped:
        table = gpu_spec(name).fitted.get("gemm", {}).get("bf16")
    else:
        of_gpu = fits(data, gpu_spec(name))
        gemm = next((fit for fit in of_gpu if (fit.operator, fit.dtype) == ("gemm", "bf16")), None)
        table = learn(gemm) if gemm else None
    return GemmParameters(**table) if table else None


def _summed(
    rows: KernelRows, predicted_s: NDArray[np.float64], plain_s: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Predicted, measured and roofline sums over the GEMMs of each tp and token count."""
    keys = np.column_stack([rows["tp"], rows["num_tokens"]])
    layer = np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)
    whole = np.bincount(layer) == 4
    times = (predicted_s, rows.time_s, plain_s)
    predicted, measured, plain = (np.bincount(layer, time_s)[whole] for time_s in times)
    return predicted, measured, plain


def roofline_s(fit: Fit) -> NDArray[np.float64]:
    """The larger of FLOP over peak and bytes over bandwidth, of each row of a fit."""
    gpu, rows = gpu_spec(fit.gpu), fit.rows
    if fit.operator == "gemm":
        return _gemm_roofline_s(gpu, rows["m"], rows, BITS[fit.dtype])
    if fit.operator == "all_reduce":
        sent = 2.0 * (rows["ranks"] - 1.0) / rows["ranks"] * rows["bytes"]
        return np.asarray(sent / gpu.link_bytes_per_s)
    element = rows["head_dim"] * np.array([KV_BYTES.get(kv, 2) for kv in rows["kv_dtype"]])
    if fit.operator == "decode_attention":
        kv_bytes = 2.0 * rows["batch"] * rows["ctx_len"] * rows["kv_heads"] * element
        return np.asarray(kv_bytes / gpu.bandwidth_bytes_per_s)
    pairs = rows["batch"] * rows["heads"] * rows["seq_len"] * (rows["seq_len"] + 1.0) / 2.0
    peak = gpu.peak_flop_per_s(8.0 if fit.dtype == "fp8" else 16.0)
    kv_bytes = 2.0 * rows["batch"] * rows["seq_len"] * rows["kv_heads"] * element
    memory_s = kv_bytes / gpu.bandwidth_bytes_per_s
    return np.asarray(np.maximum(4.0 * rows["head_dim"] * pairs / peak, memory_s))


def _gemm_roofline_s(
    gpu: GpuSpec, m: NDArray[np.float64], rows: KernelRows, bits: float
) -> NDArray[np.float64]:
    n, k = rows["n"], rows["k"]
    traffic = bits / 8.0 * (m * k + n * k) + 2.0 * m * n
    flop_s = 2.0 * m * n * k / gpu.peak_flop_per_s(bits)
    return np.asarray(np.maximum(flop_s, traffic / gpu.bandwidth_bytes_per_s))


def _has_goal(outcome: Outcome) -> bool:
    return outcome.operator != "linear_layer_sum" or outcome.kernel == GOAL_MODEL


def _report(outcomes: list[Outcome], *, by_kernel: bool) -> list[dict[str, Any]]:
    """One row per operator, GPU and dtype, with several engines' kernels together or apart."""
    together: dict[tuple[str, str, str, str], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        kernel = outcome.kernel if by_kernel else ""
        together[outcome.operator, outcome.gpu, outcome.dtype, kernel].append(outcome)
    rows = []
    for (operator, gpu, dtype, _), found in together.items():
        predicted_s = np.concatenate([outcome.predicted_s for outcome in found])
        measured_s = np.concatenate([outcome.measured_s for outcome in found])
        error = 100.0 * np.abs(predicted_s / measured_s - 1.0)
        plain_s = np.concatenate([outcome.roofline_s for outcome in found])
        rows.append(
            {
                "operator": operator,
                "gpu": gpu,
                "dtype": dtype,
                "rows": len(error),
                "mape": round(float(error.mean()), 2),
                "median": round(float(np.median(error)), 2),
                "p95": round(float(np.quantile(error, 0.95)), 2),
                "roofline_mape": round(float(100.0 * np.abs(plain_s / measured_s - 1.0).mean()), 1),
                "goal": goal(operator, gpu, dtype),
                "kernels": sorted({outcome.kernel for outcome in found}),
            }
        )
    return rows


def goal(operator: str, gpu: str, dtype: str) -> float | None:
    """Mean absolute percentage error to stay under; goals for GEMM and attention are of bf16."""
    if operator in ("gemm", "decode_attention", "context_attention") and dtype != "bf16":
        return None
    return GOAL_L40S_GEMM if (operator, gpu) == ("gemm", "l40s") else GOALS[operator]


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as text, errors in percent; `roof` is the error of the datasheet's roofline."""
    line = "{:18} {:10} {:12} {:>7} {:>6} {:>7} {:>6} {:>6} {:>5}  {}"
    head = ("operator", "gpu", "dtype", "rows", "mape", "median", "p95")
    lines = [line.format(*head, "roof", "goal", "kernels")]
    for row in rows:
        shown = [str(row[name]) for name in (*head, "roofline_mape")]
        stated = "" if row["goal"] is None else row["goal"]
        lines.append(line.format(*shown, stated, " ".join(row["kernels"])))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

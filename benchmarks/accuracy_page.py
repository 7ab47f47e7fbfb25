"""Put results into docs/accuracy.md.

    python benchmarks/accuracy_page.py [--results DIR]

DIR holds ``accuracy_shipped.json`` and ``accuracy_left_out.json``, the answers of
``benchmarks/accuracy.py --json`` with and without ``--shipped``, and ``calibrate_loop.json`` and
``calibrate_loop_small.json``, those of ``benchmarks/calibrate_loop.py`` for both models.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "accuracy.md"
NAMES = {
    "gemm": "GEMM",
    "decode_attention": "decode attention",
    "context_attention": "prefill attention",
    "all_reduce": "all-reduce",
    "linear_layer_sum": "linear layers, summed",
}
Row = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    folder = parser.parse_args().results
    shipped, left_out, loop, small = (
        json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for name in (
            "accuracy_shipped",
            "accuracy_left_out",
            "calibrate_loop",
            "calibrate_loop_small",
        )
    )
    text = PAGE.read_text(encoding="utf-8")
    for name, drawn in (
        ("accuracy", accuracy_table(shipped["rows"], left_out["rows"])),
        ("other models", other_table(shipped["other_rows"])),
        ("loop", loop_table(loop["summary"])),
        ("small loop", loop_table(small["summary"])),
    ):
        head, begin, rest = text.partition(f"<!-- {name} -->\n")
        _, end, tail = rest.partition(f"<!-- end {name} -->")
        if not (begin and end):
            parser.error(f"{PAGE} has no place for {name!r}")
        text = f"{head}{begin}{drawn}\n{end}{tail}"
    PAGE.write_text(text, encoding="utf-8")
    return 0


def accuracy_table(shipped: list[Row], left_out: list[Row]) -> str:
    """One line per operator, GPU and dtype: shipped parameters beside cross-validation."""
    crossed = {_key(row): row for row in left_out}
    lines = [
        "| operator | GPU | dtype | rows | shipped: MAPE | median | p95 | left out: MAPE | median "
        "| p95 | roofline MAPE | goal |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(shipped, key=lambda row: list(NAMES).index(row["operator"])):
        other = crossed.get(_key(row))
        errors = [row[name] for name in ("mape", "median", "p95")]
        errors += [other[name] if other else None for name in ("mape", "median", "p95")]
        shown = ["" if error is None else f"{error:.1f}" for error in errors]
        for place, error in enumerate(errors):
            if place in (0, 3) and error is not None and row["goal"] and error > row["goal"]:
                shown[place] = f"**{shown[place]}**"
        goal = "" if row["goal"] is None else f"{row['goal']:g}"
        cells = [NAMES[row["operator"]], row["gpu"], row["dtype"], f"{row['rows']:,}"]
        cells += [*shown, f"{row['roofline_mape']:.0f}", goal]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def other_table(rows: list[Row]) -> str:
    """Summed linear layers of the models without a goal."""
    lines = ["| GPU | models | rows | MAPE | median | p95 | roofline MAPE |"]
    lines.append("|---|---|---|---|---|---|---|")
    for row in rows:
        cells = [row["gpu"], ", ".join(row["kernels"]), f"{row['rows']:,}"]
        cells += [f"{row[name]:.1f}" for name in ("mape", "median", "p95")]
        lines.append(f"| {' | '.join(cells)} | {row['roofline_mape']:.0f} |")
    return "\n".join(lines)


def loop_table(summary: dict[str, Any]) -> str:
    """Errors of predicted makespans on the real engine, mean and range over the repeats."""
    lines = [
        "| job | steps as planned | one calibration, before: mean | range "
        "| calibrations before and after: mean | range |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in summary.items():
        cells = ["all, median absolute" if name == "all" else name]
        cells.append("yes" if found["same_steps"] else "no")
        for key in ("error_percent", "error_around_percent"):
            mean = found[key]["median_absolute" if name == "all" else "mean"]
            shown = f"{mean:.1f} %" if name == "all" else f"{mean:+.1f} %"
            cells += [shown, f"{found[key]['least']:+.1f} to {found[key]['most']:+.1f} %"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _key(row: Row) -> tuple[str, str, str]:
    return row["operator"], row["gpu"], row["dtype"]


if __name__ == "__main__":
    sys.exit(main())

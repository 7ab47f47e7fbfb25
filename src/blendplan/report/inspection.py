"""The whole picture of a plan, as `inspect` draws it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Group, RenderableType

from blendplan.report.breakdown import breakdown_table
from blendplan.report.kv_groups import kv_rows
from blendplan.report.quantities import count, duration, rounded, share
from blendplan.report.summary import facts, headline_rows
from blendplan.report.tables import Column, Columns
from blendplan.report.timeline import Row, Timeline


def picture(
    plan: Mapping[str, Any],
    series: Mapping[str, Sequence[float]],
    *,
    start_s: NDArray[np.float64],
    memory_left_tokens: NDArray[np.int64],
) -> Group:
    """Totals, groups and time line.

    Args:
        plan: keys as in ``blendplan inspect --json``.
        series: columns of the simulated run over time; ``end_s`` and means per step of ``step_s``,
            ``compute_s``, ``memory_s``, ``kv_tokens``, ``running`` and ``prefill_tokens``.
        start_s, memory_left_tokens: time of each admission, and KV tokens of the compute side's
            share then; [n], in order of admission.
    """
    parts: list[RenderableType] = [facts(headline_rows(plan) | _engine_rows(plan))]
    for title, rows in (("side", plan["sides"]), ("family", plan["families"])):
        if len(rows) > 1:
            parts += ["", breakdown_table(title, rows)]
    columns = {name: np.asarray(values, dtype=np.float64) for name, values in series.items()}
    if len(columns["end_s"]):
        parts += ["", _over_time(plan, columns, start_s, memory_left_tokens)]
    return Group(*parts)


def parts_picture(plan: Mapping[str, Any]) -> Group:
    """Totals of a plan and of each of its parts; keys as in ``blendplan inspect --json``."""
    columns = [
        Column("replica", text=True),
        *map(Column, ("requests", "makespan", "of the optimum", "density", "sharing")),
        Column("preemptions", narrow="preemp-\ntions", spare=1),
    ]
    rows = [
        (
            str(number),
            count(part["requests"]),
            duration(part["predicted"]["makespan_s"]),
            share(part["bound_ratio"]),
            rounded(part["density"]),
            share(part["prefix_sharing"]["planned"]),
            count(part["predicted"]["preemptions"]),
        )
        for number, part in enumerate(plan["parts"])
    ]
    return Group(facts(headline_rows(plan) | _engine_rows(plan)), "", Columns(columns, rows))


def _engine_rows(plan: Mapping[str, Any]) -> dict[str, str]:
    engine, turnaround = plan["engine"], plan["turnaround_s"]
    rows = {
        "turnaround": ", ".join(
            f"{name.upper()} {duration(turnaround[name])}" for name in turnaround
        ),
        **(
            {"tail": f"{duration(plan['tail_s'])} from the last admission to the end"}
            if "tail_s" in plan
            else {}
        ),
        "engine": f"{count(engine['kv_tokens'])} KV {plan['kv_unit']} in blocks of "
        f"{engine['block_size']}, "
        f"{count(engine['max_num_seqs'])} requests and "
        f"{count(engine['max_num_batched_tokens'])} tokens a step, tp {plan['tp']}, "
        f"replicas {plan['replicas']}",
        **kv_rows(plan["kv_groups"]),
    }
    for name, graphs in plan["cuda_graphs"].items():
        use, own = graphs["use"], graphs["own_use"]
        rows[f"graphs, {name}"] = (
            f"{share(use['steps'])} of the steps with {share(use['tokens'])} of the tokens, "
            f"{share(use['padding'])} padded; by itself {share(own['steps'])} with "
            f"{share(own['tokens'])}, {share(own['padding'])} padded"
        )
    if len(plan.get("sides", ())) > 1:
        left = plan["memory_left_share"]
        rows["partition"] = (
            f"{share(left['p50'])} of the KV cache to the compute side in the median, "
            f"{share(left['p10'])} to {share(left['p90'])} in most admissions"
        )
    if plan["cost_note"]:
        rows["prices"] = plan["cost_note"]
    if plan["lengths_note"]:
        rows["output lengths"] = plan["lengths_note"]
    return rows


def _over_time(
    plan: Mapping[str, Any],
    columns: Mapping[str, NDArray[np.float64]],
    start_s: NDArray[np.float64],
    memory_left_tokens: NDArray[np.int64],
) -> RenderableType:
    step_s = columns["step_s"]
    kv_tokens = float(plan["engine"]["kv_tokens"])
    running = float(columns["running"].max())
    prefill = float(columns["prefill_tokens"].max())
    # The partition holds from one admission to the next.
    in_force = np.searchsorted(start_s, columns["end_s"], side="right") - 1
    rows = [
        Row("compute time", columns["compute_s"] / step_s, 1.0, "of each step", "green"),
        Row("memory time", columns["memory_s"] / step_s, 1.0, "of each step", "blue"),
        Row(
            "KV cache",
            columns["kv_tokens"],
            kv_tokens,
            f"of {rounded(kv_tokens)} {plan['kv_unit']}",
            "cyan",
        ),
        Row("running", columns["running"], running, f"at most {rounded(running)}", "magenta"),
        Row("prefill", columns["prefill_tokens"], prefill, f"at most {rounded(prefill)} tokens"),
    ]
    if len(plan["sides"]) > 1:
        left = memory_left_tokens[np.maximum(in_force, 0)]
        rows.append(Row("compute side", left, kv_tokens, "of the KV cache", "yellow"))
    return Timeline(columns["end_s"], rows)

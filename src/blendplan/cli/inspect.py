"""``blendplan inspect``: what a plan file says."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from blendplan.cli.answer import Answer, answering, headline
from blendplan.cli.options import FILE
from blendplan.cli.progress import Progress

if TYPE_CHECKING:
    from blendplan.planfile.plan import Plan


@click.command("inspect")
@click.argument("plan_file", metavar="PLAN", type=FILE)
@answering
def command(plan_file: Path, answer: Answer) -> None:
    """Show what is in a plan.

    Totals, memory partition, groups of requests, and the run over time.
    """
    from blendplan.planfile.plan import Plan
    from blendplan.report.inspection import picture

    with Progress(quiet=answer.quiet) as progress:
        progress.stage(f"reading {plan_file.name}")
        plan = Plan.read(plan_file)
        plan.verify(plan_file)
        values = inspection(plan)
        drawn = _slowest(plan)
    answer.give(
        values,
        lambda shown: picture(
            shown,
            plan.metadata["series"],
            start_s=drawn.column("start_s"),
            memory_left_tokens=drawn.column("memory_left_tokens"),
        ),
    )


def _slowest(plan: "Plan") -> "Plan":
    """The part whose run over time the plan of several replicas holds."""
    parts = plan.metadata.get("parts", [plan.metadata])
    times = [part["predicted"]["makespan_s"] for part in parts]
    return plan.part(times.index(max(times)))


def inspection(plan: "Plan") -> dict[str, Any]:
    """The answer under ``--json``: the headline numbers, limits of the engine and groups."""
    import numpy as np

    from blendplan.planfile.rerun import gpu_of
    from blendplan.policy.state_machine import SIDES
    from blendplan.report.breakdown import COLUMNS, breakdown, families
    from blendplan.simulator.engine_graphs import graph_uses

    metadata = plan.metadata
    left_out = ("mixed_steps", "decode_steps", "graph_sizes")
    engine = {key: value for key, value in metadata["engine"].items() if key not in left_out}
    columns = {name: plan.column(name) for name in COLUMNS}
    left_tokens = plan.column("memory_left_tokens")
    return headline(metadata) | {
        "tp": metadata["tp"],
        "replicas": metadata["replicas"],
        "parts": [headline(part) for part in metadata.get("parts", [])],
        "cost_note": metadata["cost_model"].get("note", ""),
        "engine": engine,
        "cuda_graphs": graph_uses(metadata["engine"], gpu_of(plan), metadata["tp"]),
        "admission_batches": len(np.unique(plan.column("batch"))),
        "memory_left_share": {
            name: float(np.quantile(left_tokens, at)) / engine["kv_tokens"]
            for name, at in (("p10", 0.1), ("p50", 0.5), ("p90", 0.9))
        },
        "turnaround_s": metadata["predicted"]["turnaround_s"],
        # Nothing new fills the steps any more.
        "tail_s": metadata["predicted"]["makespan_s"] - float(plan.column("start_s").max()),
        "lengths_note": metadata["lengths"]["note"],
        "estimated_prompts": metadata["lengths"]["estimated_prompts"],
        "sides": breakdown(SIDES, plan.sides(), columns),
        "families": breakdown(*families(plan.table.column("request_id")), columns),
    }

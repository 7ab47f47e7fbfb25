"""``blendplan inspect``: what a plan says."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from blendplan.cli.answer import Answer, answering, headline
from blendplan.cli.options import FILE
from blendplan.cli.progress import Progress
from blendplan.cli.ranges import within

if TYPE_CHECKING:
    from blendplan.planfile.plan import Plan


@click.command("inspect")
@click.argument("plan_file", metavar="PLAN", type=FILE)
@click.option(
    "--replica",
    type=within("replica"),
    metavar="I",
    help="Show one part of a plan for several replicas by itself, counted from 0.",
)
@answering
def command(plan_file: Path, replica: int | None, answer: Answer) -> None:
    """Show what is in a plan.

    Totals, memory partition, groups of requests, and the run over time. Of a folder, the totals of
    each part, whose files must be there and have their sizes; --replica I reads and shows one.
    """
    from blendplan.planfile.folder import PlanFolder
    from blendplan.planfile.opened import PlanFile, open_plan
    from blendplan.report.inspection import parts_picture, picture

    with Progress(quiet=answer.quiet) as progress:
        progress.stage(f"reading {plan_file.name}")
        opened = open_plan(plan_file)
        if replica is not None:
            plan = opened.part(replica)
        elif isinstance(opened, PlanFile):
            plan = opened.plan
        else:
            if isinstance(opened, PlanFolder):
                opened.check_sizes()
            answer.give(_of_whole(opened.metadata), parts_picture)
            return
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
    if "parts" not in plan.metadata:
        return plan
    times = [part["predicted"]["makespan_s"] for part in plan.metadata["parts"]]
    return plan.part(times.index(max(times)))


def inspection(plan: "Plan") -> dict[str, Any]:
    """The answer under ``--json``: the headline numbers, limits of the engine and groups."""
    import numpy as np

    from blendplan.policy.state_machine import SIDES
    from blendplan.report.breakdown import COLUMNS, breakdown, families

    metadata = plan.metadata
    columns = {name: plan.column(name) for name in COLUMNS}
    left_tokens = plan.column("memory_left_tokens")
    return _of_whole(metadata) | {
        "admission_batches": len(np.unique(plan.column("batch"))),
        "memory_left_share": {
            name: float(np.quantile(left_tokens, at)) / metadata["engine"]["kv_tokens"]
            for name, at in (("p10", 0.1), ("p50", 0.5), ("p90", 0.9))
        },
        # Nothing new fills the steps any more.
        "tail_s": metadata["predicted"]["makespan_s"] - float(plan.column("start_s").max()),
        "sides": breakdown(SIDES, plan.sides(), columns),
        "families": breakdown(*families(plan.table.column("request_id")), columns),
    }


def _of_whole(metadata: dict[str, Any]) -> dict[str, Any]:
    """What can be told without the rows."""
    from blendplan.hardware.kv_layers import kv_layers
    from blendplan.planfile.rerun import gpu_of, model_of
    from blendplan.report.kv_groups import kv_groups
    from blendplan.simulator.engine_graphs import graph_uses

    kv_dtype = metadata["engine"]["kv_dtype"]
    kept = kv_layers(model_of(metadata), tp=metadata["tp"], kv_dtype=kv_dtype)
    left_out = ("mixed_steps", "decode_steps", "graph_sizes")
    return headline(metadata) | {
        "tp": metadata["tp"],
        "replicas": metadata["replicas"],
        "parts": [headline(part) for part in metadata.get("parts", [])],
        "cost_note": metadata["cost_model"].get("note", ""),
        "engine": {key: val for key, val in metadata["engine"].items() if key not in left_out},
        "kv_groups": kv_groups(kept),
        "kv_unit": "slots" if "holding" in metadata else "tokens",
        "cuda_graphs": graph_uses(metadata["engine"], gpu_of(metadata), metadata["tp"]),
        "turnaround_s": metadata["predicted"]["turnaround_s"],
        "lengths_note": metadata["lengths"]["note"],
        "estimated_prompts": metadata["lengths"]["estimated_prompts"],
    }

"""`shared_plans`: the plan of several replicas as each of them has it when requests may move."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from blendplan.planfile.plan import Plan


def shared_plans(plan: Plan) -> list[Plan]:
    """One plan for each replica, over the rows of all of them.

    A row has the same number in each, and in the plan, so that requests can go from one replica to
    another. What numbers requests within a part numbers them over all parts: families of different
    parts differ, parts follow one another depth-first, and the orders by density are merged by
    rank. Policies and their parameters are those of the parts.

    Args:
        plan: of one replica, which stays as it is, or of several.
    """
    if "parts" not in plan.metadata:
        return [plan]
    part = plan.column("replica")
    starts = np.flatnonzero(np.diff(part, prepend=-1))
    sizes = np.diff(starts, append=len(part))
    start, size = (np.repeat(values, sizes) for values in (starts, sizes))
    family = plan.column("family")
    families = np.maximum.reduceat(family, starts) + 1
    before = np.repeat(np.cumsum(families) - families, sizes)
    # All answers of a request stay together.
    by_density, answer = plan.column("by_density"), plan.column("answer")
    request = np.cumsum(answer == 0) - 1
    rank = np.minimum.reduceat((by_density + 0.5) / size, np.flatnonzero(answer == 0))[request]
    columns = {
        "family": family + before,
        "depth_first": plan.column("depth_first") + start,
        "by_density": _places(np.lexsort((by_density, request, rank))),
    }
    table = plan.table
    for name, values in columns.items():
        place = table.column_names.index(name)
        table = table.set_column(place, name, pa.array(values.astype(np.int64)))
    series: dict[str, list[float]] = {name: [] for name in plan.metadata["series"]}
    whole = replace(plan, table=table)
    return [
        replace(whole, metadata={**metadata, "series": series})
        for metadata in plan.metadata["parts"]
    ]


def with_prompts_of(plan: Plan, rows: NDArray[np.int64]) -> Plan:
    """The same plan without the prompts and bodies of other rows, which are most of it.

    Args:
        plan: of n rows.
        rows: those that keep theirs, all answers of a request or none; int64.
    """
    others = np.ones(len(plan), dtype=np.bool_)
    others[rows] = False
    kept = pa.array(np.arange(len(plan)), mask=others)
    table = plan.table
    for name in ("prompt_token_ids", "body"):
        place = table.column_names.index(name)
        table = table.set_column(place, table.schema.field(name), table.column(name).take(kept))
    return replace(plan, table=table)


def _places(order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Place of each item in an order; int64."""
    places = np.empty(len(order), dtype=np.int64)
    places[order] = np.arange(len(order))
    return places

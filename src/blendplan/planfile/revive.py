"""`plan_policy`: the policy that made a plan, in its first state again."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from blendplan.hardware.engine_settings import EngineSettings
from blendplan.planfile.columns import numbers, sides_of
from blendplan.policy.blend.start import Arrangement, BlendOptions
from blendplan.policy.blend.timetable import rearrange
from blendplan.policy.known import PolicyInput, StepPrices, output_spread
from blendplan.policy.registry import Policy, initial_state, policy_kind
from blendplan.policy.state import BLEND, COMPUTE, MEMORY, SCANNERS


def plan_policy(
    table: pa.Table, metadata: Mapping[str, Any], settings: EngineSettings, left: NDArray[np.int64]
) -> Policy:
    """The policy of a plan over the rows that are left, in its first state.

    A queue admits in row order. Scanners took the compute side from the front of the sorted order
    and the memory side from its back, so that order can be read off the plan. The timetable of
    `blend` is when the simulated run admitted, or a new one when much of the work is done.
    """
    name = metadata["policy"]
    parameters = metadata["policy_parameters"]
    rows = np.arange(len(left), dtype=np.int64)
    sides = sides_of(table)[left]
    compute, memory = rows[sides == COMPUTE], rows[sides == MEMORY]
    kind = policy_kind(name, parameters)
    order = np.concatenate([compute, memory[::-1]]) if kind == SCANNERS else rows

    def column(name: str) -> NDArray[np.float64]:
        return numbers(table, name)[left].astype(np.float64)

    columns = PolicyInput(
        depth_first=rows,
        family=rows,
        by_density=order,
        prompt_tokens=column("prompt_tokens"),
        new_prompt_tokens=column("new_prompt_tokens"),
        output_tokens=column("output_tokens_mean"),
        output_spread=output_spread(
            *(column(f"output_tokens_{name}") for name in ("mean", "p50", "p90"))
        ),
        density=column("density"),
        root_density=float(metadata["density"]),
        prices=StepPrices(**metadata["step_prices"]),
    )
    arrangement, options = None, None
    if kind == BLEND:
        options = BlendOptions(**parameters)
        arrangement = Arrangement(compute, memory, column("batch")[memory])
        if len(left) < table.num_rows:
            arrangement = rearrange(arrangement, columns, settings, options)
    state = initial_state(kind, order, columns, settings, arrangement, options)
    return Policy(name, state, parameters)

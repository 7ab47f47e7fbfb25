"""`schedule_bound`: lower bound on the makespan of prepared requests, on one engine or several."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendplan.cost.machine import Machine
from blendplan.planning.bound import Bound, bound_of, bound_of_replicas, least_work
from blendplan.planning.prepare import Prepared


def schedule_bound(
    prepared: Prepared,
    target: Machine,
    output_tokens: NDArray[np.integer[Any]],
    *,
    preemptions: int = 0,
    replicas: int = 1,
) -> Bound:
    """The bound of `makespan_bound`, or on several engines that of `bound_of_replicas`.

    Args:
        prepared: the requests.
        target: the machine of each engine.
        output_tokens: of each sequence, as they turn out; int [s].
        preemptions: of the run to certify, on all engines together.
        replicas: how many engines there are.
    """
    prompts = prepared.workload.prompt_tokens.astype(np.int64)
    outputs = output_tokens.astype(np.int64)
    holding, kv_tokens = prepared.expected.holding, target.limits.kv_tokens
    work = least_work(
        prompts,
        outputs,
        prepared.prefill,
        preemptions,
        reach=target.table.reach,
        holding=holding,
    )
    if replicas == 1:
        return bound_of(target.table, work, kv_tokens)
    longest_prompt = int(prompts[np.argmax(outputs)])
    return bound_of_replicas(target.table, work, longest_prompt, kv_tokens, replicas, holding)

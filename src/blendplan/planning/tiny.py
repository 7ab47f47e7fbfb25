"""`compile_policies`: a second process compiles what simulating some policies needs.

Most of a first plan is compilation, and most of that are the step loops of its policies, which come
last. So the command line has them compiled ahead (`blendplan.kernels.ahead`), by simulating two
requests here, while it reads and sorts.
"""

import numpy as np

from blendplan.cost.step import StepTable
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.policy.known import PolicyInput, StepPrices
from blendplan.policy.registry import POLICIES
from blendplan.simulator.simulate import simulate_run
from blendplan.simulator.workload import Workload
from blendplan.tree.blocks import BlockChains

_LIMITS = EngineLimits(kv_tokens=1024, max_num_seqs=2, max_num_batched_tokens=64)
_EFFORT = 1


def compile_policies(names: str) -> None:
    """Simulate every kind of step loop that policies may choose from, on two requests.

    Args:
        names: policies, separated by commas.
    """
    known, workload, table = _known(), _workload(), _table()
    compiled = set()
    for name in names.split(","):
        kind = POLICIES.get(name)
        for candidate in kind.candidates(_EFFORT, False, known.prices):
            policy = kind.make(known, _LIMITS, seed=0, parameters=candidate.parameters)
            if policy.transitions not in compiled:
                compiled.add(policy.transitions)
                simulate_run(workload, policy, _LIMITS, table)


def _known() -> PolicyInput:
    rows, ones = np.arange(2), np.ones(2)
    prices = StepPrices(token_s=1.0, read_s=1.0, least_tokens=8)
    return PolicyInput(
        depth_first=rows,
        family=rows,
        by_density=rows,
        prompt_tokens=20.0 * ones,
        new_prompt_tokens=20.0 * ones,
        outcomes=np.tile(np.linspace(12.0, 48.0, 10), (2, 1)),
        density=np.array([2.0, 0.5]),
        root_density=1.0,
        prices=prices,
    )


def _workload() -> Workload:
    chains = BlockChains(np.zeros(0, np.int32), np.zeros(3, np.int64), 0)
    return Workload(np.full(2, 20, np.int32), np.full(2, 30, np.int32), chains)


def _table() -> StepTable:
    return StepTable(
        linear_s=np.arange(65.0),
        head_s=np.arange(3.0),
        prefill_attention=np.ones(3),
        decode_attention=np.ones(3),
        overlap=1.0,
        step_s=1.0,
    )

"""The step loop: the steps of the simulated engine under a policy, compiled as one."""

from collections.abc import Callable
from functools import cache as remembered
from typing import Any

from blendplan.cost.step import StepTable
from blendplan.kernels.kernel import kernel
from blendplan.policy.state_machine import Transitions
from blendplan.simulator.kv import AnyCache, used_tokens
from blendplan.simulator.series import Series
from blendplan.simulator.steps import Engine, admit, begin, leave, may_admit, price, sample, serve

RunSteps = Callable[[Engine, AnyCache, Any, StepTable, Series, int], bool]


@remembered
def step_loop(policy: Transitions) -> RunSteps:
    """``run_steps`` under one kind of policy.

    It runs up to a number of steps and returns whether every request has finished. It returns
    early, with False and without a step taken, when the engine is idle and the policy admits
    nothing: the caller turns that into an error.
    """
    begin_step, next_request, admitted, preempted, finished, shares = policy

    @kernel
    def take_step(
        engine: Engine, cache: AnyCache, state: Any, table: StepTable, series: Series
    ) -> bool:
        now, step = engine.now[0], engine.step[0]
        begin(engine, begin_step(state, now.running, float(used_tokens(cache))))
        compute_tokens, memory_tokens = shares(state)

        serve(engine, cache)
        for place in range(now.waiting_again - step.lost, now.waiting_again):
            preempted(state, engine.waiting_again[place])

        while may_admit(engine):
            again = now.waiting_again > 0
            if again:
                request = engine.waiting_again[now.waiting_again - 1]
            else:
                request = next_request(state, now.running)
            if request < 0 or not admit(engine, cache, request):
                break
            admitted(state, request)
            if not again:
                engine.share_tokens[request, 0] = round(compute_tokens)
                engine.share_tokens[request, 1] = round(memory_tokens)

        left = 0
        if now.async_scheduling:
            left = leave(engine, cache)
            for place in range(left):
                finished(state, engine.done[place])
        if not price(engine, cache, table, series):
            # Everybody was done, or was preempted to make room for nobody, or nobody may enter an
            # idle engine.
            return left + step.victims > 0
        sample(engine, cache)
        if not now.async_scheduling:
            for place in range(step.done):
                finished(state, engine.done[place])
        return True

    @kernel
    def run_steps(
        engine: Engine,
        cache: AnyCache,
        state: Any,
        table: StepTable,
        series: Series,
        most_steps: int,
    ) -> bool:
        now = engine.now[0]
        requests = len(engine.prompt_tokens)
        for _ in range(most_steps):
            if now.finished == requests:
                return True
            if not take_step(engine, cache, state, table, series):
                return False
        return now.finished == requests

    return run_steps

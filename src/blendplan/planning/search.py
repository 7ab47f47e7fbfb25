"""`best_parameters`: which parameters of a policy suit a request set, found by simulation."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from blendplan.cost.machine import Machine
from blendplan.errors import BlendplanError
from blendplan.lengths.plausible import plausible_outputs
from blendplan.planning.part import take_part, thinned_rows
from blendplan.planning.prepare import Prepared
from blendplan.planning.tail import Tail
from blendplan.policy.make import make_of_kind
from blendplan.policy.state_machine import Candidate, Parameters, PolicyKind
from blendplan.simulator.simulate import SimulatedRun, simulate_run

# Requests on which candidates are compared; of larger sets so many are taken.
MOST_REQUESTS = 50_000
# Draws of uncertain lengths that candidates are compared on, as far as `MOST_REQUESTS` allows.
MOST_DRAWS = 4


class Choice(NamedTuple):
    """Parameters, and the run of all requests with them where that has been simulated.

    Attributes:
        parameters: of the policy.
        run: of all requests, None where only a part was simulated, or nothing.
        trade: what a `Tail` costs and gets, None where none was asked for.
    """

    parameters: Parameters
    run: SimulatedRun | None = None
    trade: dict[str, Any] | None = None


def best_parameters(
    prepared: Prepared,
    target: Machine,
    kind: PolicyKind,
    *,
    effort: int = 1,
    seed: int = 0,
    tail: Tail | None = None,
    advance: Callable[[int, int], None] | None = None,
) -> Choice:
    """Those of a policy's candidates that give the shortest simulated run.

    Output lengths come as predicted where they are known, and elsewhere as drawn at random from
    their predictions: what suits a run in which every prediction is right may be fragile, and what
    suits one draw may be luck, so small sets are drawn several times. Of more than `MOST_REQUESTS`
    requests a part is simulated. The first of equals wins, so the result is
    the same on every machine. A single candidate is taken without simulation.

    Args:
        prepared: the requests.
        target: the machine.
        kind: the policy.
        effort: 0 to 2, how many candidates it may offer.
        tail: how much longer the run may be for requests to be done sooner.
        seed: of the draws, and for policies that draw random numbers.
        advance: called with (simulated candidates, all of them) as they end.
    """
    unsure = bool(prepared.expected.unsure.any())
    candidates = kind.candidates(effort, unsure, prepared.expected.prices)
    if len(candidates) == 1:
        if tail is not None:
            raise BlendplanError(
                "there is nothing to choose from for an earlier turnaround, since one set of "
                "parameters is looked at; take the policy blend with an effort of 1 or 2"
            )
        return Choice(candidates[0].parameters)
    n = len(prepared.requests)
    draws = min(MOST_DRAWS, max(1, MOST_REQUESTS // n)) if unsure else 1
    # The workload's own lengths may be what really happens.
    outputs = [
        plausible_outputs(prepared.expected.outcomes, prepared.numbers, seed + draw)
        for draw in range(draws)
    ]
    part, happens = prepared, outputs
    if n > MOST_REQUESTS:
        drawn = replace(prepared, workload=replace(prepared.workload, output_tokens=outputs[0]))
        part = take_part(drawn, target, thinned_rows(prepared.request_tree.order, MOST_REQUESTS))
        happens = [part.workload.output_tokens]

    def simulated(candidate: Candidate, output_tokens: NDArray[np.int32]) -> SimulatedRun:
        workload = replace(part.workload, output_tokens=output_tokens)
        policy = make_of_kind(
            kind, part.expected, target.limits, seed=seed, parameters=candidate.parameters
        )
        return simulate_run(
            workload, policy, target.limits, target.table, layout=target.layout, progress=go_on
        )

    stopped = threading.Event()

    def go_on(done: int, total: int) -> None:
        if stopped.is_set():
            raise InterruptedError

    runs = []
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        try:
            waiting = [
                [threads.submit(simulated, candidate, tokens) for tokens in happens]
                for candidate in candidates
            ]
            for of_candidate in waiting:
                runs.append([one.result() for one in of_candidate])
                if advance is not None:
                    advance(len(runs), len(candidates))
        except BaseException:
            # An interrupted search does not wait for the runs that nobody needs any more.
            stopped.set()
            threads.shutdown(wait=False, cancel_futures=True)
            raise
    expected_s = [
        candidate.handicap * sum(run.makespan_s for run in of_candidate)
        for candidate, of_candidate in zip(candidates, runs, strict=True)
    ]
    best, trade = int(np.argmin(expected_s)), None
    if tail is not None:
        turnarounds_s = [
            sum(run.turnaround_s()[tail.soonest] for run in of_candidate) for of_candidate in runs
        ]
        best = tail.choose(expected_s, turnarounds_s)
        trade = tail.told(expected_s, turnarounds_s, best)
    whole = np.array_equal(happens[0], prepared.workload.output_tokens)
    return Choice(candidates[best].parameters, runs[best][0] if whole else None, trade)

"""`blend` beside a slow, obvious one: the same decision at every event of every run."""

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import Phase, event, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from blendplan.hardware.engine_limits import EngineLimits
from blendplan.lengths.predicted import OUTCOMES, log_normal_outcomes
from blendplan.policy.blend.start import BlendOptions
from blendplan.policy.known import PolicyInput, StepPrices
from blendplan.policy.progress import Progress
from tests.oracles.blend_kernels import CompiledBlend
from tests.oracles.layer_kinds import LAYERS, PLAIN
from tests.oracles.slow_blend import SlowBlend
from tests.oracles.slow_engine import SlowEngine

# Sums of multiples of this are exact in any order.
GRAIN = 64.0

# No run of these workloads is near as long.
MOST_STEPS = 20_000


@dataclass(frozen=True)
class Case:
    """A workload, what a policy believes of it, and the engine that runs it.

    Attributes:
        revised: what is believed from the start of a step on.
    """

    prompts: list[list[int]]
    outputs: list[int]
    columns: PolicyInput
    revised: dict[int, PolicyInput]
    engine: EngineLimits
    options: BlendOptions


@st.composite
def cases(draw: st.DrawFn, tight: bool) -> Case:
    """Requests in families, with short and long outputs, of which more or less is known.

    In ``tight`` ones outputs are longer than predicted in a small KV cache that the policy fills,
    so that the engine preempts. Only what makes cases different in kind is drawn one by one;
    numbers come from a seed.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(5, 60))
    stems = [rng.integers(0, 3, rng.integers(0, 24)).tolist() for _ in range(1 + n // 8)]
    stem = np.sort(rng.integers(0, len(stems), n))
    prompts = [stems[s] + rng.integers(0, 3, rng.integers(1, 20)).tolist() for s in stem]
    long = rng.random(n) < draw(st.sampled_from([0.5, 0.9] if tight else [0.1, 0.5]))
    outputs = np.where(long, rng.integers(9, 50, n), rng.integers(1, 9, n))
    beliefs = [_beliefs(draw, rng, stem, outputs, tight) for _ in range(3)]
    prompt_tokens = np.array([float(len(prompt)) for prompt in prompts])
    block = draw(st.integers(1, 6))
    room = draw(st.sampled_from([1.0, 1.3, 1.7] if tight else [1.5, 4.0, 12.0]))
    longest = -(-int((prompt_tokens + outputs).max()) // block)
    engine = EngineLimits(
        kv_tokens=block * int(longest * room),
        max_num_seqs=draw(st.integers(2, 16)),
        max_num_batched_tokens=draw(st.integers(16, 160)),
        block_size=block,
    )
    new_tokens = np.ceil(GRAIN * prompt_tokens * rng.uniform(0.2, 1.0, n)) / GRAIN
    columns = PolicyInput(
        depth_first=np.arange(n)[:: draw(st.sampled_from([1, -1]))],
        family=np.cumsum(np.diff(stem, prepend=0) > 0),
        by_density=np.arange(n),
        prompt_tokens=prompt_tokens,
        new_prompt_tokens=new_tokens,
        outcomes=beliefs[0],
        density=np.ones(n),
        root_density=1.0,
        prices=StepPrices(
            token_s=1.0,
            read_s=0.5,
            least_tokens=draw(st.integers(1, 64)),
            efficient_tokens=draw(st.sampled_from([(), ([1, 9], [16, 16], [33, 40], [96, 300])])),
        ),
    )
    reach, holding, state_reads = draw(st.sampled_from([*LAYERS, PLAIN, PLAIN]))
    columns = replace(
        columns,
        reach=reach,
        holding=holding,
        prices=columns.prices._replace(state_reads=state_reads),
    )
    columns, *better = (columns.with_outcomes(outcomes) for outcomes in beliefs)
    steps = draw(st.sampled_from([[], [5], [20, 60]]))
    revised = dict(zip(steps, better, strict=False))
    return Case(prompts, outputs.tolist(), columns, revised, engine, draw(blend_options(tight)))


def _beliefs(
    draw: st.DrawFn,
    rng: np.random.Generator,
    stem: NDArray[np.int64],
    outputs: NDArray[np.int64],
    low: bool,
) -> NDArray[np.float64]:
    """Likely lengths: of each family known, wrongly said to be known, unsure, the same for all of
    it, or either short or long; [n, OUTCOMES].
    """
    n = len(stem)
    expected, spread = outputs.astype(np.float64), np.zeros(n)
    either = np.zeros(n, dtype=np.bool_)
    for number in range(stem.max() + 1):
        mine = stem == number
        kind = draw(
            st.sampled_from(["wrong", "unsure", "alike", "either", "known"][: 4 if low else 5])
        )
        if kind == "known" or not mine.any():
            continue
        spread[mine] = 0.0 if kind == "wrong" else draw(st.sampled_from([0.1, 0.4, 0.8, 1.5]))
        noise = np.exp(rng.normal(-1.5 if low else 0.0, draw(st.sampled_from([0.2, 1.0])), n))
        expected[mine] *= noise[mine]
        if kind == "alike":
            expected[mine] = expected[mine].mean()
        either |= mine & (kind == "either")
    # With lengths of hundreds, a bucket is wider than a step.
    expected[rng.integers(n)] *= draw(st.sampled_from([1.0, 8.0, 30.0]))
    outcomes = log_normal_outcomes(expected, spread)
    outcomes[either, 7:] *= 4.0
    outcomes = np.ceil(GRAIN * np.maximum(1.0, outcomes)) / GRAIN
    # So that their mean is exact too.
    unsure = outcomes[:, 0] < outcomes[:, -1]
    odd = (GRAIN * outcomes.sum(axis=1)) % OUTCOMES
    outcomes[unsure, -1] += (OUTCOMES - odd[unsure]) / GRAIN
    return outcomes


def blend_options(full: bool) -> st.SearchStrategy[BlendOptions]:
    """Options at their ends, and limits that no sum of token counts hits exactly."""
    return st.builds(
        BlendOptions,
        boundary=st.sampled_from([0.3071, 1.0173, 3.0391]),
        limit=st.sampled_from([0.9803, 1.2907] if full else [0.4917, 0.9803, 1.2907]),
        reserve=st.sampled_from([0.0, 0.507, 2.003]),
        families=st.booleans(),
        burst_steps=st.sampled_from([1, 1, 2, 7]),
    )


class BothBlends:
    """The compiled policy and the slow one; they must agree whenever they are asked.

    Once rounding could have decided something, what follows says nothing about either.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        self.compiled = CompiledBlend(case.columns, case.engine, case.options)
        self.slow = SlowBlend(case.columns, case.engine, case.options, self.compiled.width)
        self.decisions: Counter[str] = Counter()

    def revise(self, columns: PolicyInput) -> None:
        """Both go over to other predictions."""
        requests = self.slow.requests
        progress = Progress(
            running=np.array([r.row for r in requests if r.running], dtype=np.int64),
            admitted=np.array([not r.waiting for r in requests]),
            finished=np.array([r.done for r in requests]),
            generated=np.array([r.elapsed(self.slow.clock) for r in requests], dtype=np.int32),
        )
        if progress.admitted.all():
            return
        self.decisions["revision"] += 1
        waits_again = progress.admitted & ~progress.finished
        waits_again[progress.running] = False
        self.decisions["revision after preemption"] += bool(waits_again.any())
        self.compiled.revise(columns, progress)
        self.slow = SlowBlend(
            columns, self.case.engine, self.case.options, self.compiled.width, self.slow
        )

    def begin_step(self, running: int, used_tokens: float) -> int:
        columns = self.case.revised.get(self.slow.clock)
        if columns is not None:
            self.revise(columns)
        limit = self.slow.limit
        budget = self.compiled.begin_step(running, used_tokens)
        slow_budget = self.slow.begin_step(running, used_tokens)
        self._unless_close("budget", budget, slow_budget)
        assert self.compiled.shares() == pytest.approx(self.slow.shares(), rel=1e-9, abs=1e-6)
        self.decisions["higher limit"] += self.slow.limit > limit
        self.decisions["lower limit"] += self.slow.limit < limit
        outlived = any(not self.slow.longer(request) for request in self.slow.long())
        self.decisions["outlived"] += outlived
        return budget

    def next_request(self, running: int) -> int:
        request = self.compiled.next_request(running)
        self._unless_close("request", request, self.slow.next_request(running))
        return request

    def _unless_close(self, what: str, compiled: int, slow: int) -> None:
        if self.slow.edges.close:
            raise TooCloseError
        self.decisions[what] += 1
        assert compiled == slow, (what, self.decisions)

    def admitted(self, request: int) -> None:
        self.compiled.admitted(request)
        self.slow.admitted(request)

    def preempted(self, request: int) -> None:
        self.decisions["preemption"] += 1
        self.compiled.preempted(request)
        self.slow.preempted(request)

    def finished(self, request: int) -> None:
        self.compiled.finished(request)
        self.slow.finished(request)


class TooCloseError(Exception):
    """Rounding could decide otherwise."""


@dataclass
class Tally:
    """How often each kind of thing came up in all cases together."""

    cases: int = 0
    too_close: int = 0
    decisions: Counter[str] = field(default_factory=Counter)


def run_case(case: Case, tally: Tally) -> bool:
    """Run to the end, or until rounding matters; returns whether it came to the end."""
    both = BothBlends(case)
    engine = SlowEngine(
        case.prompts,
        case.outputs,
        blocks=case.engine.kv_blocks,
        block_size=case.engine.block_size,
        max_num_batched_tokens=case.engine.max_num_batched_tokens,
        max_num_seqs=case.engine.max_num_seqs,
        policy=both,
    )
    tally.cases += 1
    try:
        for _ in range(MOST_STEPS):
            if engine.finished == len(case.prompts):
                break
            engine.step()
    except TooCloseError:
        tally.too_close += 1
        return False
    finally:
        tally.decisions.update(both.decisions)
    assert engine.finished == len(case.prompts)
    for name, left in both.compiled.left().items():
        assert left == pytest.approx(0.0, abs=1e-4), name
    return True


@pytest.mark.parametrize(("tight", "least_preemptions"), [(False, 0), (True, 20)])
def test_every_decision_is_that_of_the_slow_policy(tight: bool, least_preemptions: int) -> None:
    tally = Tally()

    @given(cases(tight))
    @settings(max_examples=20, phases=(Phase.reuse, Phase.generate))
    def decide(case: Case) -> None:
        event(f"came to the end: {run_case(case, tally)}")

    decide()
    # What the comparison rests on.
    assert tally.too_close <= 3
    assert tally.decisions["budget"] > 1_000
    assert tally.decisions["request"] > 500
    assert tally.decisions["preemption"] >= least_preemptions

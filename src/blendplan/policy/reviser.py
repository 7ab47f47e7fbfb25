"""`Reviser`: what a run teaches of output lengths, and the policy that follows from it."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendplan.hardware.engine_limits import EngineLimits
from blendplan.kernels.kernel import kernel
from blendplan.lengths.predicted import Lengths
from blendplan.lengths.relearn import Relearner
from blendplan.policy.known import PolicyInput
from blendplan.policy.progress import Progress, carried
from blendplan.policy.state_machine import Policy

# Lengths are learned after this share of the expected work, and again whenever the work that is
# done has grown by a factor: at about 1, 2, 5, 10, 20 and 50 %. What is expected may change.
FIRST_SHARE = 0.01
GROWTH = 2.2
# For so many requests that each time takes seconds, and even the first has seen enough.
MANY, GROWTH_OF_MANY = 100_000, 5.0
# Whatever happens, no more than that often.
MOST_REVISIONS = 8
# Looks at a run's progress, in shares of the least steps that it can take.
_LOOKS = 256
_LEAST_STEPS = 4


@dataclass(frozen=True)
class Revision:
    """What was known when a run was planned anew.

    Attributes:
        work: share of the work that was done, as much as was expected until then.
        finished: requests that had ended.
        output_tokens: of all requests together, as expected from then on.
    """

    work: float
    finished: int
    output_tokens: float


@dataclass(frozen=True)
class Unsure:
    """Requests whose lengths can be learned while they run.

    Attributes:
        features: of n requests, float32 [n, f]; worked out when something is to be learned.
        lengths: as predicted.
        max_tokens: caps, -1 where there is none; int32 [n].
    """

    features: Callable[[], NDArray[np.float32]]
    lengths: Lengths
    max_tokens: NDArray[np.int32]


@dataclass(frozen=True)
class Earlier:
    """Requests of the same job that are no longer the policy's.

    Attributes:
        left: those that are the policy's: its request i is the job's ``left[i]``, and none of it
            where that is -1; int64 [m].
        generated: output length of those that ended earlier, 0 of all others; int32 [n].
    """

    left: NDArray[np.int64]
    generated: NDArray[np.int32]


class Reviser:
    """Says now and then what a run has taught, and arranges what waits anew.

    Work is counted in tokens: those of the prompts that were admitted, each shared prefix once, and
    those that were generated. The same progress gives the same policies.

    Args:
        known: what is known of the m requests of the policy.
        unsure: of all n requests of the job.
        limits: of the engine.
        earlier: which of those are the policy's; all without it.

    Attributes:
        expected_output_tokens: of all n requests together, before the run.
        revisions: what was learned so far.
    """

    def __init__(
        self,
        known: PolicyInput,
        unsure: Unsure,
        limits: EngineLimits,
        earlier: Earlier | None = None,
    ) -> None:
        n = len(unsure.lengths)
        if earlier is None:
            earlier = Earlier(np.arange(n), np.zeros(n, dtype=np.int32))
        self.expected_output_tokens = float(unsure.lengths.mean.sum(dtype=np.float64))
        self.revisions: list[Revision] = []
        self._known = known
        self._unsure = unsure
        self._limits = limits
        self._longest = known.holding.longest(limits.kv_blocks * limits.block_size)
        self._earlier = earlier
        self._relearner: Relearner | None = None
        self._changing = Lock()
        self._total = _work(known)
        # Where some ended before, there is something to learn from at once.
        first = 0.0 if earlier.generated.any() else FIRST_SHARE
        self._due = first * self._total
        self._growth = GROWTH if n < MANY else GROWTH_OF_MANY

    def as_dict(self) -> dict[str, Any]:
        """What was learned, as JSON values: ``expected_output_tokens`` and ``revisions``."""
        return {
            "expected_output_tokens": self.expected_output_tokens,
            "revisions": [asdict(revision) for revision in self.revisions],
        }

    @property
    def over(self) -> bool:
        """Whether nothing is to be learned any more."""
        return len(self.revisions) == MOST_REVISIONS

    def __call__(self, policy: Policy, progress: Progress) -> Policy | None:
        """The policy to go on with; None where it is the same for the rest of the run."""
        if self.over or policy.revise is None or progress.admitted.all():
            return None
        if not self.due(progress) or (known := self.learn(progress)) is None:
            return policy
        return policy.revise(policy, known, progress, self._limits)

    def due(self, progress: Progress) -> bool:
        """Whether so much work is done that lengths are to be learned, and some requests wait."""
        waiting = not progress.admitted.all()
        return waiting and not self.over and self._done(progress) >= self._due

    def learn(self, progress: Progress) -> PolicyInput | None:
        """What is known of the policy's requests by now; None while that is too little.

        None too where the policy's requests have changed meanwhile, in another thread.
        """
        earlier = self._earlier
        generated = earlier.generated.copy()
        inside = earlier.left >= 0
        own = earlier.left[inside]
        generated[own] = progress.generated[inside]
        finished = earlier.generated > 0
        finished[own] = progress.finished[inside]
        running = earlier.left[progress.running]
        if self._relearner is None:
            unsure = self._unsure
            self._relearner = Relearner(unsure.features, unsure.lengths, unsure.max_tokens)
        learned = self._relearner.lengths(finished, running[running >= 0], generated)
        if learned is None:
            return None
        with self._changing:
            if self._earlier is not earlier:
                return None
            done = self._done(progress)
            self._due = max(FIRST_SHARE * self._total, self._growth * done)
            share = done / max(1.0, self._total)
            expected = float(learned.mean.sum(dtype=np.float64))
            self.revisions.append(Revision(share, int(finished.sum()), expected))
            outcomes = self._known.outcomes.copy()
            prompts = self._known.prompt_tokens[inside].astype(np.int64)
            # The last generated token is never written to the cache.
            room = np.maximum(1, self._longest - prompts + 1)
            outcomes[inside] = learned.take(own).within(1.0, room).outcomes
            self._known = self._known.with_outcomes(outcomes)
            self._total = _work(self._known)
            return self._known

    def regroup(self, known: PolicyInput, kept: NDArray[np.int64]) -> PolicyInput:
        """Go on with other requests; what is known of them by now.

        Those that are new are none of the job, so nothing is learned from or of them.

        Args:
            known: what was known of them before the run.
            kept: the number that each had before, -1 of a new one; int64.
        """
        with self._changing:
            if self.revisions:
                outcomes = carried(self._known.outcomes, kept)
                outcomes[kept < 0] = known.outcomes[kept < 0]
                known = known.with_outcomes(outcomes)
            self._earlier = replace(self._earlier, left=carried(self._earlier.left, kept, -1))
            self._known = known
            self._total = _work(known)
            return known

    def _done(self, progress: Progress) -> float:
        return float(_done(self._known.new_prompt_tokens, progress.admitted, progress.generated))


def _work(known: PolicyInput) -> float:
    return float((known.new_prompt_tokens + known.output_tokens).sum())


def steps_between_looks(least_steps: int) -> int:
    """Steps after which a run's progress is looked at again.

    Args:
        least_steps: fewest that the run can take, as far as is known before it.
    """
    return max(_LEAST_STEPS, least_steps // _LOOKS)


@kernel
def _done(
    new_prompt_tokens: NDArray[np.float64],
    admitted: NDArray[np.bool_],
    generated: NDArray[np.int32],
) -> float:
    tokens = 0.0
    for request in range(len(admitted)):
        if admitted[request]:
            tokens += new_prompt_tokens[request] + generated[request]
    return tokens

"""`Relearner`: output lengths of a job as it runs, from those that have ended and those that have
not.
"""

from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from blendplan.lengths.forest import LengthForest
from blendplan.lengths.from_prompts import ended_or_cut_off
from blendplan.lengths.learner import LengthLearner
from blendplan.lengths.plausible import plausible_outputs
from blendplan.lengths.predicted import OUTCOMES, Lengths, is_unsure
from blendplan.lengths.protocol import longest_outputs

# Most requests that are learned from.
MOST_SAMPLES = 4000
# Trees of the forest. Twice as many predict hardly better; with these, learning from as many
# samples takes a second or two.
_TREES = 40
# A running request tells something once it has generated this many tokens.
LEAST_GENERATED = 1
# Waiting requests that count as if they had the lengths predicted before the run, and how many
# samples all of them count for.
MOST_PREDICTED = 400
PREDICTED_WEIGHT = 2.0
# Requests that must have ended before anything is learned.
LEAST_ENDED = 30


class Relearner:
    """Learns lengths anew from a run.

    Args:
        features: of n requests, see `request_features`; float32 [n, f]. They are worked out when
            there is enough to learn from.
        expected: lengths as they were predicted before the run.
        max_tokens: caps, -1 where there is none; int32 [n].
    """

    def __init__(
        self,
        features: Callable[[], NDArray[np.float32]],
        expected: Lengths,
        max_tokens: NDArray[np.int32],
    ) -> None:
        self._given = features
        self._expected = expected
        self._max_tokens = max_tokens
        self._unsure = is_unsure(expected.outcomes)
        self._sampled = ~self._unsure & ~expected.known

    @cached_property
    def _features(self) -> NDArray[np.float32]:
        """What was predicted is a feature too; float32 [n, f + 2]."""
        first = np.log(self._expected.outcomes[:, [OUTCOMES // 2, -1]])
        return np.concatenate([self._given(), first.astype(np.float32)], axis=1)

    def _with_predicted(
        self,
        waiting: NDArray[np.int64],
        rows: NDArray[np.int64],
        tokens: NDArray[np.int64],
        censored: NDArray[np.bool_],
        weights: NDArray[np.float64],
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_], NDArray[np.float64]]:
        """The samples, and some waiting requests with lengths as predicted before the run.

        Requests run in an order: of kinds that have not begun the others say nothing. Where there
        are samples, these few hardly count.
        """
        places = np.unique(np.linspace(0, len(waiting) - 1, MOST_PREDICTED).astype(np.int64))
        added = waiting[places] if len(waiting) else waiting
        drawn = plausible_outputs(self._expected.outcomes[added], added, 0).astype(np.int64)
        exact, cut_off = ended_or_cut_off(drawn.astype(np.int32), self._max_tokens[added])
        share = np.full(len(added), PREDICTED_WEIGHT / max(1, len(added)))
        return (
            np.concatenate([rows, added]),
            np.concatenate([tokens, exact]),
            np.concatenate([censored, cut_off]),
            np.concatenate([weights, share]),
        )

    def lengths(
        self, finished: NDArray[np.bool_], running: NDArray[np.int64], generated: NDArray[np.int32]
    ) -> Lengths | None:
        """Lengths of all n requests by what is known by now; None while that is too little.

        Those that have ended have the length they had.

        Args:
            finished: requests that have ended, all but those that failed having generated
                something; bool [n].
            running: requests that have begun and not ended; int64 [m].
            generated: tokens generated so far; int32 [n].
        """
        ended = np.flatnonzero(finished & self._unsure & (generated > 0))
        if len(ended) < LEAST_ENDED:
            return None
        sampled = np.flatnonzero(self._sampled)
        going = running[self._unsure[running] & (generated[running] >= LEAST_GENERATED)]
        rows = np.concatenate([ended, sampled, going])
        tokens = np.concatenate(
            [generated[ended], self._expected.mean[sampled], generated[going]]
        ).astype(np.int32)
        still = np.arange(len(rows)) >= len(ended) + len(sampled)
        exact, cut_off = ended_or_cut_off(tokens, self._max_tokens[rows])
        if len(rows) > MOST_SAMPLES:
            kept = np.random.default_rng(0).choice(len(rows), MOST_SAMPLES, replace=False)
            kept.sort()
            rows, exact, cut_off, still = rows[kept], exact[kept], cut_off[kept], still[kept]
        censored = cut_off | still
        weights = np.ones(len(rows))
        waiting = self._unsure & ~finished
        waiting[running] = False
        rows, exact, censored, weights = self._with_predicted(
            np.flatnonzero(waiting), rows, exact, censored, weights
        )
        learner = LengthLearner(LengthForest(trees=_TREES))
        learner.fit(self._features[rows], exact, weights, censored)
        unsure = self._unsure.copy()
        unsure[ended] = False
        left = np.flatnonzero(unsure)
        longest = longest_outputs(self._max_tokens[left])
        predicted = learner.predict(self._features[left]).within(1.0, longest)
        return self._expected.certain(ended, generated[ended]).replaced(left, predicted)

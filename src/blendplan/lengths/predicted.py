"""`Lengths`: predicted output lengths as columns, the same from predictor to plan; `Total`."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

OUTCOMES = 10
"""Equally likely lengths that stand for the distribution of one."""

# Standard normal quantile: nine values in ten are lower.
_Z90 = float(ndtri(0.9))


@dataclass(frozen=True)
class Total:
    """Output tokens of n requests together, as a sample estimates them.

    Attributes:
        requests: n.
        results: sampled requests that the estimate is from.
        tokens: the estimate.
        low, high: interval that holds the true total with the probability `level`.
        level: 0 to 1.
    """

    requests: int
    results: int
    tokens: float
    low: float
    high: float
    level: float

    @property
    def mean(self) -> float:
        """Estimated mean output length in tokens."""
        return self.tokens / self.requests

    def as_dict(self) -> dict[str, float]:
        """For JSON: ``estimate``, ``low``, ``high``, ``mean``, ``level`` and ``results``."""
        return {
            "estimate": self.tokens,
            "low": self.low,
            "high": self.high,
            "mean": self.mean,
            "level": self.level,
            "results": self.results,
        }


@dataclass(frozen=True)
class Lengths:
    """Predicted output length of n requests, in tokens.

    Attributes:
        outcomes: ten equally likely lengths of each request, rising: the mean of each tenth of its
            distribution. All are equal where the length is certain; float32 [n, OUTCOMES].
        p50, p90: quantiles of the prediction; float32 [n].
        known: True where the length is stated rather than predicted; bool [n].
        source: name of the predictor that the others come from, empty where none has a name.
        note: one sentence for the user when a prediction is weak, else empty.
        total: output tokens of all of them where a sample tells how sure that is, else None.
        common_error: by how much all lengths that are not known may be off together: the standard
            deviation of the logarithm of the factor.
    """

    outcomes: NDArray[np.float32]
    p50: NDArray[np.float32]
    p90: NDArray[np.float32]
    known: NDArray[np.bool_]
    source: str = ""
    note: str = ""
    total: Total | None = None
    common_error: float = 0.0

    @classmethod
    def predicted(
        cls, outcomes: ArrayLike, p50: ArrayLike, p90: ArrayLike, note: str = ""
    ) -> "Lengths":
        """What a predictor says of n requests, none of them known.

        Args:
            outcomes: ten equally likely lengths of each; [n, OUTCOMES].
            p50, p90: quantiles; [n].
            note: see the class.
        """
        outcomes, p50, p90 = (np.asarray(x, dtype=np.float32) for x in (outcomes, p50, p90))
        return cls(outcomes, p50, p90, known=np.zeros(len(p50), dtype=np.bool_), note=note)

    @classmethod
    def log_normal(
        cls, mean: ArrayLike, p50: ArrayLike, p90: ArrayLike, note: str = ""
    ) -> "Lengths":
        """For predictors that say no more than a mean and two quantiles; [n] each.

        The outcomes are those of a log-normal length with these quantiles, in proportion to the
        mean.
        """
        mean, p50, p90 = (np.asarray(values, dtype=np.float64) for values in (mean, p50, p90))
        spread = np.log(np.maximum(p90, p50) / np.maximum(p50, 1e-9)) / _Z90
        return cls.predicted(log_normal_outcomes(mean, spread), p50, p90, note)

    @classmethod
    def stated(cls, tokens: ArrayLike) -> "Lengths":
        """Lengths of which nothing is unsure; [n]."""
        tokens = np.asarray(tokens, dtype=np.float32)
        return cls.predicted(np.repeat(tokens[:, None], OUTCOMES, axis=1), tokens, tokens)

    def __len__(self) -> int:
        return len(self.p50)

    @cached_property
    def mean(self) -> NDArray[np.float32]:
        """Expected length; float32 [n]."""
        return self.outcomes.mean(axis=1, dtype=np.float64).astype(np.float32)

    @property
    def columns(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Mean, p50 and p90; float32 [n] each."""
        return self.mean, self.p50, self.p90

    def take(self, rows: NDArray[np.integer[Any]]) -> "Lengths":
        """Those of some requests; nothing is known of the sum of those."""
        return self._with(lambda column: column[rows], known=self.known[rows], total=None)

    def within(self, least: ArrayLike, most: ArrayLike) -> "Lengths":
        """Every length cut to a range, known ones too; tokens [n] or one number."""
        least, most = np.asarray(least), np.asarray(most)

        def cut(column: NDArray[np.float32]) -> NDArray[np.float32]:
            ends = (end[:, None] if end.ndim and column.ndim > 1 else end for end in (least, most))
            return np.clip(column, *ends).astype(np.float32)

        return self._with(cut)

    def certain(self, rows: NDArray[np.int64] | NDArray[np.bool_], tokens: ArrayLike) -> "Lengths":
        """With the lengths that some requests have for certain.

        They are not marked as known, which means stated in the request.

        Args:
            rows: which requests, by k indices or by a mask of k True.
            tokens: their lengths; [k].
        """
        tokens = np.asarray(tokens)

        def replaced(column: NDArray[np.float32]) -> NDArray[np.float32]:
            changed = column.copy()
            changed[rows] = tokens[:, None] if column.ndim > 1 else tokens
            return changed

        return self._with(replaced)

    def replaced(self, rows: NDArray[np.int64], others: "Lengths") -> "Lengths":
        """With other predictions of some requests; int64 [k]."""
        columns = {name: getattr(self, name).copy() for name in ("outcomes", "p50", "p90")}
        for name, column in columns.items():
            column[rows] = getattr(others, name)
        return replace(self, **columns)

    def _with(self, change: Any, **others: Any) -> "Lengths":
        columns = {name: change(getattr(self, name)) for name in ("outcomes", "p50", "p90")}
        return replace(self, **columns, **others)


def is_unsure(outcomes: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Whether the outcomes of a request differ; bool [n].

    Args:
        outcomes: equally likely lengths, rising; [n, OUTCOMES].
    """
    unsure: NDArray[np.bool_] = outcomes[:, 0] < outcomes[:, -1]
    return unsure


def log_normal_outcomes(
    mean: NDArray[np.number[Any]], spread: NDArray[np.floating[Any]]
) -> NDArray[np.float64]:
    """The mean of each tenth of log-normal lengths; float64 [n, OUTCOMES].

    Args:
        mean: expected length; [n].
        spread: standard deviation of its logarithm, 0 where it is certain; [n].
    """
    cuts = ndtri(np.arange(OUTCOMES + 1) / OUTCOMES)
    # E[X; X < the cut at z] = E[X] Phi(z - spread).
    below = ndtr(cuts - np.asarray(spread, dtype=np.float64)[:, None])
    outcomes = np.asarray(mean, dtype=np.float64)[:, None] * OUTCOMES * np.diff(below, axis=1)
    return np.where(np.asarray(spread)[:, None] > 0, outcomes, np.asarray(mean)[:, None])

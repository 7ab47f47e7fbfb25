"""Grouped cross-validation: whole groups of measurements are left out, and predicted."""

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray

from blendplan.cost.calibration.operator_fits import Fit, enough, foretell, learn
from blendplan.cost.calibration.search import sampled


@dataclass(frozen=True)
class Validation:
    """Grouped cross-validation.

    Attributes:
        folds: parts that the groups are divided into; each is predicted by the others.
        rows: most rows that a fit learns from.
        jobs: fits at the same time, each in a process of its own.
    """

    folds: int
    rows: int
    jobs: int

    def predict(self, chosen: Sequence[Fit]) -> Iterator[NDArray[np.float64] | None]:
        """Predictions of all rows of each fit; None where there are too few to learn from."""
        tasks = [
            (fit, fold, self.folds, self.rows)
            for fit in chosen
            if enough(fit)
            for fold in range(self.folds)
        ]
        with ProcessPoolExecutor(self.jobs, get_context("spawn")) as workers:
            found = workers.map(_left_out, tasks)
            for fit in chosen:
                if not enough(fit):
                    yield None
                    continue
                predicted_s = np.full(len(fit.rows), np.nan)
                for _ in range(self.folds):
                    rows, times_s = next(found)
                    predicted_s[rows] = times_s
                print(f"{fit.operator} {fit.gpu} {' '.join(fit.path)}", file=sys.stderr, flush=True)
                yield predicted_s


def _left_out(
    task: tuple[Fit, int, int, int],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Rows of one fold, and their times by parameters fitted to rows of the others."""
    fit, fold, folds, most = task
    groups = np.unique(fit.groups)
    fold_of_group = np.empty(len(groups), np.int64)
    order = np.random.default_rng(0).permutation(len(groups))
    fold_of_group[order] = np.arange(len(groups)) % folds
    left_out = fold_of_group[np.searchsorted(groups, fit.groups)] == fold
    others = np.flatnonzero(~left_out)
    if not left_out.any() or not len(others):
        return np.empty(0, np.int64), np.empty(0)
    if fit.operator != "all_reduce":
        others = others[sampled(len(others), most)]
    taught = learn(fit, fit.rows.where(np.isin(np.arange(len(fit.rows)), others)))
    return np.flatnonzero(left_out), foretell(fit, taught, fit.rows.where(left_out))

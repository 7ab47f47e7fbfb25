"""`Lengths`: predicted output lengths as columns, the same from predictor to plan."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Lengths:
    """Predicted output length of n requests, in tokens.

    Attributes:
        mean: expected output length; float32 [n].
        p50, p90: quantiles of the prediction, equal to the mean where it is known; float32 [n].
        known: True where the length is stated rather than predicted; bool [n].
        source: name of the predictor that the others come from, empty where none has a name.
        note: one sentence for the user when a prediction is weak, else empty.
    """

    mean: NDArray[np.float32]
    p50: NDArray[np.float32]
    p90: NDArray[np.float32]
    known: NDArray[np.bool_]
    source: str = ""
    note: str = ""

    @classmethod
    def predicted(
        cls, mean: ArrayLike, p50: ArrayLike, p90: ArrayLike, note: str = ""
    ) -> "Lengths":
        """What a predictor says of n requests, none of them known; numbers [n] each."""
        columns = [np.asarray(values, dtype=np.float32) for values in (mean, p50, p90)]
        nobody = np.zeros(len(columns[0]), dtype=np.bool_)
        return cls(columns[0], columns[1], columns[2], nobody, note=note)

    def __len__(self) -> int:
        return len(self.mean)

    @property
    def columns(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Mean, p50 and p90; float32 [n] each."""
        return self.mean, self.p50, self.p90

    def take(self, rows: NDArray[np.integer[Any]]) -> "Lengths":
        """Those of some requests."""
        mean, p50, p90 = (column[rows] for column in self.columns)
        return replace(self, mean=mean, p50=p50, p90=p90, known=self.known[rows])

    def within(self, least: ArrayLike, most: ArrayLike) -> "Lengths":
        """Mean and quantiles cut to a range each, known ones too; tokens [n] or one number."""
        mean, p50, p90 = (
            np.clip(column, least, most).astype(np.float32) for column in self.columns
        )
        return replace(self, mean=mean, p50=p50, p90=p90)

    def certain(self, rows: NDArray[np.int64] | NDArray[np.bool_], tokens: ArrayLike) -> "Lengths":
        """With the lengths that some requests have for certain.

        They are not marked as known, which means stated in the request.

        Args:
            rows: which requests, by k indices or by a mask of k True.
            tokens: their lengths; [k].
        """
        columns = []
        for column in self.columns:
            changed = column.copy()
            changed[rows] = tokens
            columns.append(changed)
        mean, p50, p90 = columns
        return replace(self, mean=mean, p50=p50, p90=p90)

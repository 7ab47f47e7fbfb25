"""`Runs`: the rows of mixture runs, found by what they are of and compared."""

from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.mixture_runs import ANY, KNOWLEDGE, PLAIN, SEEDED

from blendplan.errors import BlendplanError

Row = dict[str, Any]
Entry = tuple[int, int]
"""Number of a mixture, and the seed of what is known of it."""


class Runs:
    """Rows by mixture, seed, overlap, knowledge and policy; a later one stands for an earlier one.

    Raises:
        BlendplanError: there is no row, or rows of runs that cannot be compared.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows: dict[tuple[Entry, float, str, str], Row] = {}
        kinds = set()
        for row in rows:
            entry = (row["mixture"], row["seed"])
            self._rows[entry, row["overlap"], row["knowledge"], row["policy"]] = row
            kinds.add((row["thin"], row["effort"]))
        if len(kinds) != 1:
            told = ", ".join(f"thin {thin} and effort {effort}" for thin, effort in sorted(kinds))
            raise BlendplanError(
                f"rows of {told}; give results of one kind" if kinds else "no row in the results"
            )
        self.entries = sorted({key[0] for key in self._rows})
        self.mixtures = sorted({entry[0] for entry in self.entries})
        self.overlaps = sorted({key[1] for key in self._rows})
        names = {key[2] for key in self._rows}
        self.knowledge = [name for name in KNOWLEDGE if name in names]

    def get(self, entry: Entry, overlap: float, knowledge: str, policy: str) -> Row | None:
        """The row; of a policy that does not look at lengths, whatever the knowledge."""
        knowledge = ANY if policy in PLAIN else knowledge
        entry = entry if knowledge in SEEDED else (entry[0], 0)
        return self._rows.get((entry, overlap, knowledge, policy))

    def all(self, overlap: float, knowledge: str, policy: str) -> dict[Entry, Row]:
        """The rows of all mixtures, each once."""
        found = {}
        for entry in self.entries:
            row = self.get(entry, overlap, knowledge, policy)
            if row is not None and row["seed"] == entry[1]:
                found[entry] = row
        return found

    def density(self, mixture: int) -> float | None:
        """Root density by the true lengths, of any overlap exponent."""
        for overlap in self.overlaps:
            for name in PLAIN:
                row = self.get((mixture, 0), overlap, ANY, name)
                if row is not None:
                    return float(row["density"])
        return None

    def places(self) -> list[tuple[str, float]]:
        """All of knowledge and overlap exponents."""
        return [(kind, overlap) for kind in self.knowledge for overlap in self.overlaps]

    def compared(
        self,
        overlap: float,
        first: tuple[str, str],
        others: Sequence[tuple[str, str]],
    ) -> dict[Entry, float]:
        """Throughput over that of the best of others, by mixture and seed; where all have run.

        Args:
            overlap: overlap exponent.
            first: knowledge and policy.
            others: knowledge and policy of each.
        """
        found = {}
        for entry, one in self.all(overlap, *first).items():
            rest = [self.get(entry, overlap, *other) for other in others]
            if all(rest):
                found[entry] = min(row["makespan_s"] for row in rest if row) / one["makespan_s"]
        return found

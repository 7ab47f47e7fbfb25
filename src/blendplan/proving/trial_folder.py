"""`TrialFolder`: what a trial leaves behind, and what of it is done already."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blendplan.proving.record import Record, RecordKind
from blendplan.replaying.journal import journal_path

TRIAL = RecordKind("trial", "blendplan-trial-1", "trial.json", {"runs": list})
INPUT, PLANNED = "input", "planned"
WAYS = (INPUT, PLANNED)
"""The two ways in which an excerpt runs: in input order, and as planned."""

Run = dict[str, Any]
"""How one run went, JSON values; see `run_once`."""


class TrialFolder(Record):
    """The folder of a trial.

    ``trial.json`` is written after every run, so a trial that is cut short goes on behind the last
    run that is whole; a run itself begins anew, for half of one cannot be timed.

    Args:
        path, identity: as of `Record`.

    Attributes:
        earlier: what was found before of the same runs; empty for a new trial.
        runs: those that are done, in the order in which they were.

    Raises:
        BlendplanError: as `Record`.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        super().__init__(TRIAL, path, identity)
        self.earlier = dict(self.values)
        self.runs: list[Run] = self.values.setdefault("runs", [])
        self.write()  # from now on, it is this trial's

    @property
    def profile(self) -> Path:
        """Prices fitted to the steps of the runs."""
        return self.path / "profile.toml"

    def plan(self, way: str) -> Path:
        """The plan of the excerpt."""
        return self.path / f"{way}.plan.arrow"

    def results(self, way: str, repeat: int) -> Path:
        """Answers of a run; of the first planned one, `replay` takes them over."""
        return self.path / f"{_numbered(way, repeat)}.jsonl"

    def step_log(self, way: str, repeat: int) -> Path:
        """Steps of a run."""
        return self.path / f"{_numbered(way, repeat)}.steps.parquet"

    def is_done(self, way: str, repeat: int) -> bool:
        """Whether a run is whole, and so are its files."""
        files = self.results(way, repeat), self.step_log(way, repeat)
        done = any((run["way"], run["repeat"]) == (way, repeat) for run in self.runs)
        return done and all(file.exists() for file in files)

    def clear(self, way: str, repeat: int) -> None:
        """Remove what a run left that was cut short."""
        results = self.results(way, repeat)
        for file in (results, journal_path(results)):
            file.unlink(missing_ok=True)
        self.runs[:] = [run for run in self.runs if (run["way"], run["repeat"]) != (way, repeat)]

    def add(self, run: Run) -> None:
        """A run is whole; what was found without it is out of date."""
        self.runs.append(run)
        self.earlier = {}
        self.found({})

    def found(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Write the summary with what the runs say, and return it."""
        own = {name: self.values[name] for name in ("format", "identity")}
        self.values = {**own, **values, "runs": self.runs}
        self.write()
        return self.values


def _numbered(way: str, repeat: int) -> str:
    return way if repeat == 1 else f"{way}-{repeat}"

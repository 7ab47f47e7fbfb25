"""`TrialFolder`: what a trial leaves behind, and what of it is done already."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blendplan.checks.json_files import parse_json_object, read_text
from blendplan.errors import BlendplanError
from blendplan.replaying.journal import journal_path
from blendplan.whole_file import replacing

FORMAT = "blendplan-trial-1"
_SUMMARY = "trial.json"
_HINT = "give another -o, or move it away"
INPUT, PLANNED = "input", "planned"
WAYS = (INPUT, PLANNED)
"""The two ways in which an excerpt runs: in input order, and as planned."""

Run = dict[str, Any]
"""How one run went, JSON values; see `run_once`."""


class TrialFolder:
    """The folder of a trial.

    ``trial.json`` is written after every run, so a trial that is cut short goes on behind the last
    run that is whole; a run itself begins anew, for half of one cannot be timed.

    Args:
        path: the folder; it is made where it is not there.
        identity: what the trial is of, JSON values by the names that a user knows.

    Attributes:
        path: the folder.
        earlier: what was found before of the same runs; empty for a new trial.
        runs: those that are done, in the order in which they were.

    Raises:
        BlendplanError: it cannot be made, or holds another trial or something else.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path
        self._identity: dict[str, Any] = json.loads(json.dumps(identity))
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = (error.strerror or "it cannot be made").lower()
            raise BlendplanError(f"folder {path}: {reason}; choose another place") from None
        self.earlier: dict[str, Any] = self._read()
        self.runs: list[Run] = list(self.earlier.get("runs", ()))
        self.write(self.earlier)  # from now on, it is this trial's

    @property
    def summary(self) -> Path:
        """All that was found, as JSON."""
        return self.path / _SUMMARY

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
        self.runs = [run for run in self.runs if (run["way"], run["repeat"]) != (way, repeat)]

    def add(self, run: Run) -> None:
        """A run is whole; what was found without it is out of date."""
        self.runs.append(run)
        self.earlier = {}
        self.write({})

    def write(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Write the summary, whole or not at all, and return it.

        Args:
            values: all that was found so far.
        """
        own = {"format": FORMAT, "identity": self._identity, "runs": self.runs}
        said = {"format": FORMAT, **values, **own}
        with replacing(self.summary) as temporary:
            temporary.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
        return said

    def _read(self) -> dict[str, Any]:
        values = earlier_summary(self.path)
        if not values:
            return {}
        before = values["identity"]
        names = {**self._identity, **before}
        differing = [name for name in names if before.get(name) != self._identity.get(name)]
        if differing:
            raise BlendplanError(
                f"{self.path} holds another trial ({', '.join(differing)} changed since); {_HINT}"
            )
        return values


def earlier_summary(folder: Path) -> dict[str, Any]:
    """What a trial in a folder has found so far; empty where there is none.

    Raises:
        BlendplanError: the folder holds something else.
    """
    summary = folder / _SUMMARY
    if not summary.exists():
        if folder.is_dir() and any(folder.iterdir()):
            raise BlendplanError(f"{folder} holds other files, and no trial; {_HINT}")
        return {}
    values = parse_json_object(read_text(summary, str(summary), _HINT), str(summary))
    parts = {"identity": dict, "runs": list}
    whole = all(isinstance(values.get(name), kind) for name, kind in parts.items())
    if values.get("format") != FORMAT or not whole:
        raise BlendplanError(f"{summary} is no summary of a trial; {_HINT}")
    return values


def _numbered(way: str, repeat: int) -> str:
    return way if repeat == 1 else f"{way}-{repeat}"

"""`ProofFolder`: what a proof leaves behind, and which parts of it are done."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blendplan.proving.record import Record, RecordKind

PROOF = RecordKind("proof", "blendplan-proof-1", "proof.json", {"parts": dict, "runs": list})
PAGE, PROFILE, KERNELS, STEPS = "proof.html", "profile.toml", "kernels", "steps.parquet"
"""Names in the folder."""
DONE, SKIPPED, FAILED, LEFT = "done", "skipped", "failed", "left"
"""States of a part: measured; cannot be measured here; went wrong; not begun or cut short."""

Part = dict[str, Any]


class ProofFolder(Record):
    """The folder of a proof; ``proof.json`` is written after every part and every run.

    Args:
        path, identity: as of `Record`.

    Raises:
        BlendplanError: as `Record`.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        super().__init__(PROOF, path, identity)
        self.values = {"parts": {}, "runs": []} | self.values
        self.write()

    @property
    def page(self) -> Path:
        """The same with pictures."""
        return self.path / PAGE

    @property
    def kernels(self) -> Path:
        """Tables of kernel times."""
        return self.path / KERNELS

    @property
    def profile(self) -> Path:
        """Prices of a step, fitted to the steps of this proof."""
        return self.path / PROFILE

    @property
    def steps(self) -> Path:
        """The steps that the profile is fitted to."""
        return self.path / STEPS

    def file(self, name: str) -> Path:
        """A file of a job or a run."""
        place = self.path / "runs" / name
        place.parent.mkdir(exist_ok=True)
        return place

    @property
    def runs(self) -> list[dict[str, Any]]:
        """Runs that are done."""
        runs: list[dict[str, Any]] = self.values["runs"]
        return runs

    def part(self, name: str) -> Part:
        """What is known of a part."""
        part: Part = self.values["parts"].get(name, {"state": LEFT, "why": "not begun"})
        return part

    def done(self, name: str) -> Mapping[str, Any] | None:
        """What a part has found; None where it is not done."""
        part = self.part(name)
        return part["values"] if part["state"] == DONE else None

    def put(self, name: str, part: Part) -> None:
        """A part has another state."""
        self.values["parts"][name] = part
        self.write()

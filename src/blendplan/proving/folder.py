"""`ProofFolder`: what a proof leaves behind, and which parts of it are done."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blendplan.checks.json_files import parse_json_object, read_text
from blendplan.errors import BlendplanError
from blendplan.whole_file import replacing

FORMAT = "blendplan-proof-1"
PROOF, PAGE, PROFILE = "proof.json", "proof.html", "profile.toml"
KERNELS, STEPS = "kernels", "steps.parquet"
"""Names in the folder."""
DONE, SKIPPED, FAILED, LEFT = "done", "skipped", "failed", "left"
"""States of a part: measured; cannot be measured here; went wrong; not begun or cut short."""

Part = dict[str, Any]


class ProofFolder:
    """The folder of a proof; ``proof.json`` is written after every part and every run.

    Args:
        path: of the folder, which is made where it is not there.
        identity: what the proof is of, JSON values.

    Attributes:
        path: of the folder.
        values: all that is known, as in ``proof.json``.

    Raises:
        BlendplanError: the folder cannot be made, or holds another proof or other files.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = (error.strerror or "it cannot be made").lower()
            raise BlendplanError(f"folder {path}: {reason}; choose another place") from None
        same: dict[str, Any] = json.loads(json.dumps(identity))
        self.values: dict[str, Any] = {
            "format": FORMAT,
            "identity": same,
            "parts": {},
            "runs": [],
            **self._read(same),
        }
        self.write()

    @property
    def summary(self) -> Path:
        """All that was found, as JSON."""
        return self.path / PROOF

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

    def write(self) -> None:
        """Write the summary, whole or not at all."""
        with replacing(self.summary) as temporary:
            temporary.write_text(json.dumps(self.values, indent=1) + "\n", encoding="utf-8")

    def _read(self, identity: Mapping[str, Any]) -> dict[str, Any]:
        hint = "give another -o, or move it away"
        if not self.summary.exists():
            if any(self.path.iterdir()):
                raise BlendplanError(f"{self.path} holds other files, and no proof; {hint}")
            return {}
        text = read_text(self.summary, str(self.summary), hint)
        values = parse_json_object(text, str(self.summary))
        before = values.get("identity")
        parts = {"identity": dict, "parts": dict, "runs": list}
        whole = all(isinstance(values.get(name), kind) for name, kind in parts.items())
        if values.get("format") != FORMAT or not isinstance(before, dict) or not whole:
            raise BlendplanError(f"{self.summary} is no summary of a proof; {hint}")
        names = {**identity, **before}
        differing = [name for name in names if before.get(name) != identity.get(name)]
        if differing:
            raise BlendplanError(
                f"{self.path} holds another proof ({', '.join(differing)} changed since); {hint}"
            )
        return values

"""`PlanFolder`: a plan whose parts are files of their own, with a manifest that binds them.

The manifest is written last and whole, and names each part by its SHA-256: a folder without it, or
with other files, is no plan, whatever stopped the planning or the copying. Parts of an older plan
in the same folder stay until the manifest names the new ones.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Any

import numpy as np

from blendplan.errors import BlendplanError
from blendplan.planfile.check import metadata_digest
from blendplan.planfile.plan import Plan
from blendplan.printable import show
from blendplan.whole_file import replacing

MANIFEST = "manifest.json"
FOLDER_VERSION = 1
_AGAIN = "make it again with `blendplan plan`"
# What differs between a part's own metadata and what the manifest repeats of them.
_OWN = ("series", "columns_sha256", "metadata_sha256")


@dataclass(frozen=True)
class PartFile:
    """One part of a plan as it lies in the folder.

    Attributes:
        file: its name, ``part-00003-1f0c9a2e.arrow``: number and first digits of the SHA-256.
        bytes: its size.
        sha256: of its bytes.
    """

    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class PlanFolder:
    """A plan in a folder, opened; its parts are read one by one.

    Attributes:
        path: the folder.
        metadata: what the plan says of the whole, as `Plan.metadata` of several replicas.
        files: the parts, in the order of the replicas.
        sources: the request files in order: ``name``, ``sha256`` and ``rows`` of each; JSON values.
        options: how it was planned; JSON values.
    """

    path: Path
    metadata: dict[str, Any]
    files: tuple[PartFile, ...]
    sources: tuple[dict[str, Any], ...]
    options: dict[str, Any]

    def __len__(self) -> int:
        return len(self.files)

    @property
    def requests(self) -> int:
        """How many requests all parts have together."""
        return int(self.metadata["requests"])

    def part(self, replica: int) -> Plan:
        """One part, read and checked: it is whole, and the one that the manifest names.

        Raises:
            BlendplanError: there is no such replica, or its file is missing, altered, or of
                another plan.
        """
        if not 0 <= replica < len(self):
            raise BlendplanError(f"the plan has no replica {replica}; give 0 to {len(self) - 1}")
        file = self.path / self.files[replica].file
        self._check_file(file, self.files[replica])
        plan = Plan.read(file)
        plan.verify(file)
        stated = self.metadata["parts"][replica]
        if {key: value for key, value in plan.metadata.items() if key not in _OWN} != stated:
            raise BlendplanError(f"{file} is not what {MANIFEST} says of it; {_AGAIN}")
        return plan

    def check_sizes(self) -> None:
        """Check that every part is there and has its size, without reading any.

        Raises:
            BlendplanError: one is missing, or of another size.
        """
        for stated in self.files:
            self._check_size(self.path / stated.file, stated)

    def verify(self) -> list[str]:
        """Check every part, and the parts against each other; what was checked, one line each.

        Raises:
            BlendplanError: the first thing that is wrong.
        """
        rows = []
        for number in range(len(self)):
            plan = self.part(number)
            if set(np.unique(plan.column("replica"))) != {number}:
                raise BlendplanError(
                    f"{self.path / self.files[number].file} is not replica {number}; {_AGAIN}"
                )
            rows.append(plan.column("source_row")[plan.column("answer") == 0])
        planned = np.sort(np.concatenate(rows))
        if np.any(planned[1:] == planned[:-1]) or len(planned) != self.requests:
            raise BlendplanError(
                f"{self.path}: its parts do not have each of {self.requests} requests once; "
                f"{_AGAIN}"
            )
        return [
            f"checksums of {MANIFEST} and of {len(self)} parts",
            "each part against itself: order, capacities, times and totals",
            f"every one of {self.requests} requests in one part",
        ]

    def _check_size(self, file: Path, stated: PartFile) -> None:
        if not file.is_file():
            raise BlendplanError(
                f"{file} is missing: {MANIFEST} names it as a part of the plan; copy the whole "
                "folder again, or plan again"
            )
        seen = file.stat().st_size
        if seen != stated.bytes:
            raise BlendplanError(
                f"{file} has {seen:,} bytes, {MANIFEST} says {stated.bytes:,}: it is cut off, "
                "altered, or of another plan; copy it again, or plan again"
            )

    def _check_file(self, file: Path, stated: PartFile) -> None:
        self._check_size(file, stated)
        with file.open("rb") as opened:
            digest = file_digest(opened, "sha256").hexdigest()
        if digest != stated.sha256:
            raise BlendplanError(
                f"{file} has the SHA-256 {digest[:12]}..., {MANIFEST} says "
                f"{stated.sha256[:12]}...: it is altered, or of another plan; copy it again, or "
                "plan again"
            )


def named_by_content(written: Path, number: int) -> PartFile:
    """Give a written part the name that its content calls for, in the folder where it lies."""
    with written.open("rb") as opened:
        digest = file_digest(opened, "sha256").hexdigest()
    part = PartFile(f"part-{number:05d}-{digest[:8]}.arrow", written.stat().st_size, digest)
    written.replace(written.with_name(part.file))
    return part


def write_manifest(
    folder: Path,
    metadata: Mapping[str, Any],
    files: Sequence[PartFile],
    sources: Sequence[Mapping[str, Any]],
    options: Mapping[str, Any],
    versions: Mapping[str, str],
) -> None:
    """Make a plan of the parts that lie in a folder, and remove those of an older one.

    Args:
        folder: where the parts are.
        metadata: of the whole; ``parts`` has what each part says of itself, without its series.
        files: the parts in the order of the replicas.
        sources, options: see `PlanFolder`.
        versions: of what made the plan.
    """
    content = {
        "plan": dict(metadata),
        "files": [vars(file) for file in files],
        "sources": [dict(source) for source in sources],
        "options": dict(options),
        "versions": dict(versions),
        "folder_version": FOLDER_VERSION,
    }
    content["metadata_sha256"] = metadata_digest(content)
    with replacing(folder / MANIFEST) as temporary:
        text = json.dumps(content, sort_keys=True, allow_nan=False, indent=1)
        temporary.write_text(text + "\n", encoding="utf-8")
    named = {file.file for file in files}
    for file in part_names(folder):
        if file.name not in named:
            file.unlink(missing_ok=True)


def part_names(folder: Path) -> Iterator[Path]:
    """Files in a folder that are named like parts of a plan."""
    yield from sorted(folder.glob("part-[0-9]*-" + "[0-9a-f]" * 8 + ".arrow"))


def open_folder(path: Path) -> PlanFolder:
    """Open a plan folder; its parts are read when they are asked for.

    Raises:
        BlendplanError: there is no manifest, or it is damaged, altered or of another version.
    """
    file = path / MANIFEST
    try:
        text = file.read_bytes()
    except FileNotFoundError:
        raise BlendplanError(
            f"{path} is a folder without {MANIFEST}: no plan, or one that was not finished; "
            f"{_AGAIN}"
        ) from None
    except OSError as error:
        raise BlendplanError(f"cannot read {file}: {(error.strerror or str(error)).lower()}") from (
            None
        )
    damaged = BlendplanError(f"{file} is damaged or was altered; {_AGAIN}")
    try:
        content = json.loads(text)
        version = content["folder_version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise damaged from None
    if version != FOLDER_VERSION:
        raise BlendplanError(
            f"{file} has folder version {show(version)}, this blendplan reads {FOLDER_VERSION}; "
            f"{_AGAIN}"
        )
    if content.get("metadata_sha256") != metadata_digest(content):
        raise damaged
    try:
        files = tuple(PartFile(**entry) for entry in content["files"])
        if len(files) != len(content["plan"]["parts"]) or not files:
            raise damaged
        return PlanFolder(
            path, content["plan"], files, tuple(content["sources"]), content["options"]
        )
    except (KeyError, TypeError):
        raise damaged from None

"""`open_plan`: a plan, be it one file or a folder of parts, and its parts one by one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from blendplan.checks.arguments import path as argument_path
from blendplan.errors import BlendplanError
from blendplan.planfile.folder import open_folder
from blendplan.planfile.plan import Plan


class PlanParts(Protocol):
    """A plan as whoever runs or shows it needs it: the whole's metadata, and part by part."""

    @property
    def path(self) -> Path:
        """The file or the folder."""
        ...

    @property
    def metadata(self) -> dict[str, Any]:
        """What the plan says of the whole; of several parts, ``parts`` has what each says."""
        ...

    @property
    def requests(self) -> int:
        """How many requests all parts have together."""
        ...

    def __len__(self) -> int:
        """How many parts there are, one for each replica that has requests."""
        ...

    def part(self, replica: int) -> Plan:
        """The plan of one replica, from 0, checked; of a folder, it is read now."""
        ...

    def verify(self) -> list[str]:
        """Check all of it; returns what was checked, one line each."""
        ...


@dataclass(frozen=True)
class PlanFile:
    """A plan in one file, read; see `PlanParts`."""

    path: Path
    plan: Plan
    checked: list[str]

    @property
    def metadata(self) -> dict[str, Any]:
        """The plan's own."""
        return self.plan.metadata

    @property
    def requests(self) -> int:
        """The plan's own."""
        return self.plan.requests

    def __len__(self) -> int:
        return len(self.metadata.get("parts", [self.plan]))

    def part(self, replica: int) -> Plan:
        """See `Plan.part`."""
        return self.plan.part(replica)

    def verify(self) -> list[str]:
        """What was checked when it was read; see `Plan.verify`."""
        return list(self.checked)


def open_plan(path: Path | str) -> PlanParts:
    """Open a plan file or a plan folder, and check what is read of it.

    A file is read and checked as a whole. Of a folder the manifest is, and each part when it is
    asked for, so that a process needs the memory of one part.

    Raises:
        BlendplanError: there is no plan there, or it is damaged or altered.
    """
    path = argument_path("path", path)
    if path.is_dir():
        return open_folder(path)
    plan = Plan.read(path)
    return PlanFile(path, plan, plan.verify(path))  # an altered prompt would be paid for


def the_part(parts: PlanParts, replica: int | None, verb: str) -> Plan:
    """The part that a command works on: the one that is named, or the only one.

    Args:
        parts: a plan.
        replica: its number; None where none is named.
        verb: what is to be done with it, as the error says it.

    Raises:
        BlendplanError: none is named and there are several, or there is no such part.
    """
    if replica is None and len(parts) > 1:
        raise BlendplanError(
            f"the plan is for {len(parts)} replicas; {verb} with --replica 0 to {len(parts) - 1}"
        )
    return parts.part(replica or 0)


def whole_plan(parts: PlanParts) -> Plan:
    """A plan of all replicas in one piece, as the driver of a cluster needs it.

    Of a folder all parts are read, and so take the memory that their files have.

    Raises:
        BlendplanError: a part is missing, altered, or of another plan.
    """
    if isinstance(parts, PlanFile):
        return parts.plan
    if len(parts) == 1:
        return parts.part(0)
    plans = [parts.part(number) for number in range(len(parts))]
    table = pa.concat_tables([plan.table for plan in plans])
    series: dict[str, list[float]] = {name: [] for name in plans[0].metadata["series"]}
    return Plan(table, {**parts.metadata, "series": series}, plans[0].rejected)

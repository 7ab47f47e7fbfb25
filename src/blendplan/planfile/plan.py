"""`Plan`: an ordered schedule with memory partitions, as one Arrow file."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from blendplan.checks.arguments import instance, whole, whole_numbers
from blendplan.checks.arguments import path as argument_path
from blendplan.checks.ranges import RANGES
from blendplan.errors import BlendplanError
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.planfile.check import check_columns, column_digest, metadata_digest
from blendplan.planfile.columns import (
    FORMAT_VERSION,
    METADATA_KEY,
    ROWS_PER_BATCH,
    numbers,
    parse_metadata,
    sides_of,
    unreadable,
)
from blendplan.planfile.rejected import described, with_column, without_column
from blendplan.planfile.revive import in_file_order, plan_holding, plan_policy
from blendplan.policy.live import LivePolicy
from blendplan.requests.rejects import NO_REJECTS
from blendplan.whole_file import replacing

_MAGIC_BYTES = 8  # before the first schema of an Arrow file


@dataclass(frozen=True)
class Plan:
    """A schedule of n sequences, one for each answer that a request asks for.

    Attributes:
        table: one row per sequence in admission order; the columns of `SCHEMA`.
        metadata: what the plan was made for and what it predicts; JSON values.
        rejected: requests of the file that are in no row, since they are bad or can never run: rows
            of `REJECTED`, with the columns ``source_row``, ``request_id``, ``status``, ``code`` and
            ``message``, in the order of the file. Of several replicas, the first has them.
    """

    table: pa.Table
    metadata: dict[str, Any]
    rejected: pa.Table = field(default_factory=lambda: NO_REJECTS)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def limits(self) -> EngineLimits:
        """Limits of the engine that the plan was made for."""
        return EngineLimits.from_metadata(self.metadata["engine"])

    @property
    def max_model_len(self) -> int:
        """Longest context of that engine; of a plan that names none, as long as any may be."""
        longest = RANGES["max_model_len"][1]
        return int(self.metadata["engine"].get("max_model_len", longest))

    @property
    def requests(self) -> int:
        """How many requests ask for the n answers."""
        return int(self.metadata["requests"])

    def column(self, name: str) -> NDArray[Any]:
        """A numeric column as a numpy array [n]."""
        return numbers(self.table, name)

    def sides(self) -> NDArray[np.int8]:
        """Side of each row, 0 compute and 1 memory; int8 [n]."""
        return sides_of(self.table)

    def batches(self) -> Iterator[tuple[int, pa.Table]]:
        """Admission batches in order: (step of admission, rows admitted in it).

        Those of the first replica come first, then those of the second, ...
        """
        steps, replica = self.column("batch"), self.column("replica")
        starts = np.flatnonzero(np.diff(steps, prepend=-1) | np.diff(replica, prepend=0))
        for start, end in zip(starts, [*starts[1:], len(steps)], strict=True):
            yield int(steps[start]), self.table.slice(start, end - start)

    def part(self, replica: int) -> "Plan":
        """The plan of one of several replicas, by itself.

        Raises:
            BlendplanError: there is no such replica.
        """
        parts = self.metadata.get("parts", [self.metadata])
        replica = whole("replica", replica, -1, 1 << 31)
        if not 0 <= replica < len(parts):
            raise BlendplanError(
                f"the plan has no replica {replica}; give 0 to {len(parts) - 1}"
                if len(parts) > 1
                else f"the plan has no replica {replica}, it is for one engine; give 0"
            )
        if len(parts) == 1:
            return self
        rows = np.flatnonzero(self.column("replica") == replica)
        series: dict[str, list[float]] = {name: [] for name in self.metadata["series"]}
        table = self.table.slice(rows[0], len(rows)) if len(rows) else self.table.slice(0, 0)
        rejected = NO_REJECTS if replica else self.rejected
        return Plan(table, {**parts[replica], "series": series}, rejected)

    def rejecting(self, rejected: pa.Table) -> "Plan":
        """The same plan, saying also which requests of the file it leaves out.

        Args:
            rejected: rows of `REJECTED`, in the order of the file.
        """
        said = described(rejected)
        metadata = {**self.metadata, **said}
        if "parts" in metadata:
            first, *others = metadata["parts"]
            metadata["parts"] = [{**first, **said}, *others]
        return Plan(self.table, metadata, rejected)

    def saying(self, **more: Any) -> "Plan":
        """The same plan with more keys in its metadata, and in that of its parts.

        Args:
            more: JSON values by their keys, see docs/plan-format.md; None says nothing.
        """
        said = {key: value for key, value in more.items() if value is not None}
        metadata = {**self.metadata, **said}
        if "parts" in metadata:
            metadata["parts"] = [{**part, **said} for part in metadata["parts"]]
        return Plan(self.table, metadata, self.rejected)

    def covering(self, coverage: Mapping[str, int]) -> "Plan":
        """The same plan, saying also how many requests of the file it is a plan of.

        Args:
            coverage: numbers of requests: those of the ``file``, and which of them are ``planned``,
                ``postponed``, dealt with ``already``, ``repeated`` (answered with an identical
                one), and ``rejected``.
        """
        return Plan(self.table, {**self.metadata, "coverage": dict(coverage)}, self.rejected)

    def refuse_parts(self) -> None:
        """Refuse the plan of several replicas, where one engine is meant.

        Raises:
            BlendplanError: it has parts.
        """
        if "parts" in self.metadata:
            raise BlendplanError(
                f"the plan is for {len(self.metadata['parts'])} replicas; take one with part()"
            )

    def live_policy(
        self,
        limits: EngineLimits | None = None,
        *,
        left: NDArray[np.int64] | None = None,
    ) -> LivePolicy:
        """The plan's policy in its first state, to be asked by a real engine what to admit.

        Args:
            limits: limits of that engine where they differ from the plan's; the memory
                partition follows them.
            left: rows that have no result yet, at least one; all without it. The policy knows of
                no others, so nothing is learned from what ran before.
        """
        self.refuse_parts()
        if limits is None:
            limits = self.limits
        instance("limits", limits, EngineLimits, "give EngineLimits, or None")
        if left is not None:
            left = whole_numbers("left", left, 0, len(self) - 1)
            if not len(left) or len(np.unique(left)) < len(left):
                raise BlendplanError("left is no list of different rows, at least one")
            answer = self.column("answer")
            if np.any(answer[left] > 0) and _cut(answer, left):
                raise BlendplanError("left has some answers of a request and lacks others")
        rows = in_file_order(self.table, left)
        policy = plan_policy(self.table, self.metadata, limits, rows)
        return LivePolicy(
            policy,
            self.column("prompt_tokens"),
            self.column("cached_tokens"),
            limits,
            rows,
            plan_holding(self.metadata),
        )

    def write(self, path: Path | str) -> None:
        """Write the plan as an Arrow IPC file, whole or not at all.

        Raises:
            BlendplanError: the path cannot be written.
        """
        digest = column_digest(self.table, self.rejected)
        metadata = {**self.metadata, "columns_sha256": digest}
        metadata["metadata_sha256"] = metadata_digest(metadata)
        metadata["format_version"] = FORMAT_VERSION
        text = json.dumps(metadata, sort_keys=True, allow_nan=False)
        table = with_column(self.table, self.rejected)
        schema = table.schema.with_metadata({METADATA_KEY: text.encode()})
        options = pa.ipc.IpcWriteOptions(compression=pa.Codec("zstd", compression_level=1))
        with (
            replacing(argument_path("path", path)) as temporary,
            pa.OSFile(str(temporary), "wb") as sink,
            pa.ipc.new_file(sink, schema, options=options) as writer,
        ):
            for batch in table.to_batches(max_chunksize=ROWS_PER_BATCH):
                writer.write_batch(batch)

    @classmethod
    def read(cls, path: Path | str) -> "Plan":
        """Read a plan file.

        Raises:
            BlendplanError: no such file, or not a whole plan file of a version known here.
        """
        path = argument_path("path", path)
        if path.is_dir():
            raise BlendplanError(f"plan {path} is a directory; give the path of a file")
        try:
            with pa.OSFile(str(path), "rb") as source, pa.ipc.open_file(source) as reader:
                schema = reader.schema
                _check_head(source, schema)
                text = (schema.metadata or {}).get(METADATA_KEY)
                table = reader.read_all() if text is not None else pa.table({})
            # Damaged offsets and codes would crash whoever uses the columns.
            table.validate(full=True)
        except FileNotFoundError:
            raise BlendplanError(
                f"cannot read plan {path}: No such file or directory; check the path"
            ) from None
        except OSError as error:
            if error.errno is not None:
                reason = os.strerror(error.errno).lower()
                raise BlendplanError(f"cannot read plan {path}: {reason}") from None
            raise unreadable(path, error) from None
        except (pa.ArrowException, ValueError) as error:
            raise unreadable(path, error) from None
        if text is None:
            raise BlendplanError(
                f"{path} is an Arrow file but not a plan: it has no {METADATA_KEY.decode()!r} "
                f"metadata; make one with `blendplan plan`"
            )
        rows, rejected = without_column(table.replace_schema_metadata(None))
        return cls(rows, parse_metadata(path, text, rows.schema), rejected)

    def verify(self, path: Path | None = None) -> list[str]:
        """Check the plan against itself; returns what was checked, one line each.

        Args:
            path: the file that it was read from, to be named in the error.

        Raises:
            BlendplanError: the first thing that is wrong.
        """
        try:
            return check_columns(self.table, self.metadata, self.rejected)
        except BlendplanError as error:
            raise BlendplanError(f"{path}: {error}" if path else str(error)) from None


def _cut(answer: NDArray[np.int32], left: NDArray[np.int64]) -> bool:
    """Whether rows hold some answers of a request and not others."""
    first = np.cumsum(answer == 0) - 1
    sizes = np.bincount(first)
    taken = np.bincount(first[left], minlength=len(sizes))
    return bool(np.any((taken > 0) & (taken < sizes)))


def _check_head(source: pa.NativeFile, schema: pa.Schema) -> None:
    """The schema stands at both ends of an Arrow file, and readers look at the last only.

    Raises:
        pa.ArrowInvalid: the first is damaged, so the file is not what was written.
    """
    place = source.tell()
    source.seek(_MAGIC_BYTES)
    first = pa.ipc.read_schema(pa.ipc.read_message(source))
    source.seek(place)
    if not first.equals(schema, check_metadata=True):
        raise pa.ArrowInvalid("its head and its foot differ")

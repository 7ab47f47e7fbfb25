"""`Plan`: an ordered schedule with memory partitions, as one Arrow file."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from blendplan.atomic import replacing
from blendplan.errors import BlendplanError
from blendplan.kernel import kernel
from blendplan.lengths import Lengths
from blendplan.plancheck import check_columns, column_digest, metadata_digest
from blendplan.requests import Requests
from blendplan.schedule import (
    Arrangement,
    BlendOptions,
    EngineSettings,
    LivePolicy,
    Policy,
    PolicyInput,
    StepPrices,
    output_spread,
)
from blendplan.schedule.policies import initial_state, policy_kind
from blendplan.schedule.state import BLEND, COMPUTE, MEMORY, SCANNERS, SIDES
from blendplan.schedule.timetable import rearrange
from blendplan.simulator import SimulatedRun

FORMAT_VERSION = 1
METADATA_KEY = b"blendplan"
# Rows per record batch: a batch of long prompts stays well under a gigabyte.
_ROWS_PER_BATCH = 16_384

SCHEMA = pa.schema(
    [
        ("position", pa.int64()),
        ("request_id", pa.string()),
        ("source_row", pa.int64()),
        ("replica", pa.int32()),
        ("batch", pa.int64()),
        ("side", pa.dictionary(pa.int8(), pa.string())),
        ("memory_left_tokens", pa.int64()),
        ("memory_right_tokens", pa.int64()),
        ("prefill_budget_tokens", pa.int32()),
        ("prompt_tokens", pa.int32()),
        ("cached_tokens", pa.int32()),
        ("output_tokens_mean", pa.float32()),
        ("output_tokens_p50", pa.float32()),
        ("output_tokens_p90", pa.float32()),
        ("output_tokens_known", pa.int32()),
        ("new_prompt_tokens", pa.float64()),
        ("density", pa.float64()),
        ("start_s", pa.float64()),
        ("finish_s", pa.float64()),
        ("prompt_token_ids", pa.list_(pa.int32())),
        ("body", pa.binary()),
    ]
)


@dataclass(frozen=True)
class Plan:
    """A schedule of n requests.

    Attributes:
        table: one row per request in admission order; the columns of `SCHEMA`.
        metadata: what the plan was made for and what it predicts; JSON values.
    """

    table: pa.Table
    metadata: dict[str, Any]

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def settings(self) -> EngineSettings:
        """Limits of the engine that the plan was made for."""
        engine = self.metadata["engine"]
        return EngineSettings(
            engine["kv_tokens"],
            engine["max_num_seqs"],
            engine["max_num_batched_tokens"],
            engine["block_size"],
        )

    def column(self, name: str) -> NDArray[Any]:
        """A numeric column as a numpy array [n]."""
        values: NDArray[Any] = self.table.column(name).to_numpy()
        return values

    def sides(self) -> NDArray[np.int8]:
        """Side of each row, 0 compute and 1 memory; int8 [n]."""
        column = self.table.column("side").combine_chunks()
        chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
        codes = [
            np.array([SIDES.index(name) for name in chunk.dictionary.to_pylist()], dtype=np.int8)[
                chunk.indices.to_numpy(zero_copy_only=False)
            ]
            for chunk in chunks
            if len(chunk)
        ]
        return np.concatenate(codes) if codes else np.empty(0, dtype=np.int8)

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
        return Plan(table, {**parts[replica], "series": series})

    def live_policy(
        self,
        settings: EngineSettings | None = None,
        *,
        left: NDArray[np.int64] | None = None,
    ) -> LivePolicy:
        """The plan's policy in its first state, to be asked by a real engine what to admit.

        Args:
            settings: limits of that engine where they differ from the plan's; the memory
                partition follows them.
            left: rows that have no result yet, rising, at least one; all without it. The policy
                knows of no others, so nothing is learned from what ran before.
        """
        if "parts" in self.metadata:
            raise BlendplanError(
                f"the plan is for {len(self.metadata['parts'])} replicas; take one with part()"
            )
        settings = settings or self.settings
        if left is None:
            left = np.arange(len(self), dtype=np.int64)
        policy = plan_policy(self, settings, left)
        return LivePolicy(
            policy, self.column("prompt_tokens"), self.column("cached_tokens"), settings, left
        )

    def write(self, path: Path | str) -> None:
        """Write the plan as an Arrow IPC file, whole or not at all.

        Raises:
            BlendplanError: the path cannot be written.
        """
        described = {**self.metadata, "columns_sha256": column_digest(self.table)}
        described["metadata_sha256"] = metadata_digest(described)
        described["format_version"] = FORMAT_VERSION
        text = json.dumps(described, sort_keys=True, allow_nan=False)
        schema = SCHEMA.with_metadata({METADATA_KEY: text.encode()})
        options = pa.ipc.IpcWriteOptions(compression=pa.Codec("zstd", compression_level=1))
        with (
            replacing(Path(path)) as temporary,
            pa.OSFile(str(temporary), "wb") as sink,
            pa.ipc.new_file(sink, schema, options=options) as writer,
        ):
            for batch in self.table.to_batches(max_chunksize=_ROWS_PER_BATCH):
                writer.write_batch(batch)

    @classmethod
    def read(cls, path: Path | str) -> "Plan":
        """Read a plan file.

        Raises:
            BlendplanError: no such file, or not a whole plan file of a version known here.
        """
        path = Path(path)
        try:
            with pa.OSFile(str(path), "rb") as source, pa.ipc.open_file(source) as reader:
                schema = reader.schema
                text = (schema.metadata or {}).get(METADATA_KEY)
                table = reader.read_all() if text is not None else pa.table({})
            # Damaged offsets and codes would crash whoever uses the columns.
            table.validate(full=True)
        except OSError as error:
            if error.errno is not None:
                raise BlendplanError(f"cannot read plan {path}: {error.strerror}") from None
            raise _unreadable(path, error) from None
        except (pa.ArrowException, ValueError) as error:
            raise _unreadable(path, error) from None
        if text is None:
            raise BlendplanError(
                f"{path} is an Arrow file but not a plan: it has no {METADATA_KEY.decode()!r} "
                f"metadata; make one with `blendplan plan`"
            )
        return cls(table.replace_schema_metadata(None), _parse_metadata(path, text, schema))

    def verify(self, path: Path | None = None) -> list[str]:
        """Check the plan against itself; answers what was checked, one line each.

        Args:
            path: the file that it was read from, to be named in the error.

        Raises:
            BlendplanError: the first thing that is wrong.
        """
        try:
            return check_columns(self.table, self.metadata)
        except BlendplanError as error:
            raise BlendplanError(f"{path}: {error}" if path else str(error)) from None


def _unreadable(path: Path, error: Exception) -> BlendplanError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return BlendplanError(
        f"{path} is not a plan file, or it is cut off or damaged ({reason}); "
        f"make it again with `blendplan plan`"
    )


def _damaged(path: Path) -> BlendplanError:
    return BlendplanError(f"plan {path} has damaged metadata; make it again with `blendplan plan`")


def _parse_metadata(path: Path, text: bytes, schema: pa.Schema) -> dict[str, Any]:
    try:
        metadata = json.loads(text)
        version = metadata.pop("format_version")
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise _damaged(path) from None
    if version != FORMAT_VERSION:
        raise BlendplanError(
            f"plan {path} has format version {version!r}, this blendplan reads {FORMAT_VERSION}; "
            f"make it again with `blendplan plan`"
        )
    if not {"columns_sha256", "metadata_sha256"} <= metadata.keys():
        raise _damaged(path)
    if not schema.remove_metadata().equals(SCHEMA):
        missing = [name for name in SCHEMA.names if name not in schema.names]
        what = f"lacks column {missing[0]!r}" if missing else "has columns of other types"
        raise BlendplanError(f"plan {path} {what}; make it again with `blendplan plan`")
    return dict(metadata)


def assemble_plan(
    requests: Requests,
    run: SimulatedRun,
    *,
    lengths: Lengths,
    expected: PolicyInput,
    settings: EngineSettings,
    metadata: dict[str, Any],
    replica: int = 0,
) -> Plan:
    """Put the columns of a plan together, in admission order.

    Args:
        requests: what was planned.
        run: the simulated run of the chosen policy.
        lengths: predicted output lengths.
        expected: what the policy knew.
        settings: limits of the engine.
        metadata: everything else that the plan says of itself.
        replica: number of the engine that it is for.
    """
    order = run.admission
    batches = [
        _record_batch(requests, run, lengths, expected, replica, start, order[start : start + step])
        for step in (_ROWS_PER_BATCH,)
        for start in range(0, len(order), step)
    ]
    return Plan(pa.Table.from_batches(batches, schema=SCHEMA), metadata)


def _record_batch(
    requests: Requests,
    run: SimulatedRun,
    lengths: Lengths,
    expected: PolicyInput,
    replica: int,
    start: int,
    rows: NDArray[np.int64],
) -> pa.RecordBatch:
    n = len(rows)
    share = run.share_tokens[rows]
    columns = {
        "position": np.arange(start, start + n),
        "request_id": requests.ids.take(pa.array(rows)).cast(pa.string()),
        "source_row": requests.source_row[rows],
        "replica": np.full(n, replica, dtype=np.int32),
        "batch": run.admission_step[rows],
        "side": pa.DictionaryArray.from_arrays(run.side[rows], pa.array(SIDES)),
        "memory_left_tokens": share[:, 0].copy(),
        "memory_right_tokens": share[:, 1].copy(),
        "prefill_budget_tokens": run.prefill_budget[rows],
        "prompt_tokens": requests.prompt_tokens_of(rows),
        "cached_tokens": run.cached_tokens[rows],
        "output_tokens_mean": lengths.mean[rows],
        "output_tokens_p50": lengths.p50[rows],
        "output_tokens_p90": lengths.p90[rows],
        "output_tokens_known": _known(requests.output_tokens[rows]),
        "new_prompt_tokens": expected.new_prompt_tokens[rows],
        "density": expected.density[rows],
        "start_s": run.start_s[rows],
        "finish_s": run.finish_s[rows],
        "prompt_token_ids": _prompt_lists(requests, rows),
        "body": _bodies(requests, rows),
    }
    return pa.RecordBatch.from_arrays(
        [pa.array(columns[field.name], type=field.type) for field in SCHEMA], schema=SCHEMA
    )


def _prompt_lists(requests: Requests, rows: NDArray[np.int64]) -> pa.Array:
    if requests.estimated_tokens:
        return pa.nulls(len(rows), pa.list_(pa.int32()))
    offsets = np.zeros(len(rows) + 1, dtype=np.int32)
    np.cumsum(requests.offsets[rows + 1] - requests.offsets[rows], out=offsets[1:])
    values = _gather(requests.token_ids, requests.offsets, rows, int(offsets[-1]))
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))


def _known(output_tokens: NDArray[np.int32]) -> pa.Array:
    """Output lengths that the requests state, null where they do not."""
    return pa.array(output_tokens, mask=output_tokens < 0)


def _bodies(requests: Requests, rows: NDArray[np.int64]) -> pa.Array:
    if requests.bodies is None:
        return pa.nulls(len(rows), pa.binary())
    return requests.bodies.take(pa.array(rows)).cast(pa.binary())


@kernel
def _gather(
    token_ids: NDArray[np.int32],
    offsets: NDArray[np.int64],
    rows: NDArray[np.int64],
    total: int,
) -> NDArray[np.int32]:
    values = np.empty(total, dtype=np.int32)
    at = 0
    for row in rows:
        for token in range(offsets[row], offsets[row + 1]):
            values[at] = token_ids[token]
            at += 1
    return values


def plan_policy(plan: Plan, settings: EngineSettings, left: NDArray[np.int64]) -> Policy:
    """The policy of a plan over the rows that are left, in its first state.

    A queue admits in row order. Scanners took the compute side from the front of the sorted order
    and the memory side from its back, so that order can be read off the plan. The timetable of
    `blend` is when the simulated run admitted, or a new one when much of the work is done.
    """
    name = plan.metadata["policy"]
    parameters = plan.metadata["policy_parameters"]
    rows = np.arange(len(left), dtype=np.int64)
    sides = plan.sides()[left]
    compute, memory = rows[sides == COMPUTE], rows[sides == MEMORY]
    kind = policy_kind(name, parameters)
    order = np.concatenate([compute, memory[::-1]]) if kind == SCANNERS else rows

    def column(name: str) -> NDArray[np.float64]:
        return plan.column(name)[left].astype(np.float64)

    columns = PolicyInput(
        depth_first=rows,
        family=rows,
        by_density=order,
        prompt_tokens=column("prompt_tokens"),
        new_prompt_tokens=column("new_prompt_tokens"),
        output_tokens=column("output_tokens_mean"),
        output_spread=output_spread(
            *(column(f"output_tokens_{name}") for name in ("mean", "p50", "p90"))
        ),
        density=column("density"),
        root_density=float(plan.metadata["density"]),
        prices=StepPrices(**plan.metadata["step_prices"]),
    )
    arrangement, options = None, None
    if kind == BLEND:
        options = BlendOptions(**parameters)
        arrangement = Arrangement(compute, memory, column("batch")[memory])
        if len(left) < len(plan):
            arrangement = rearrange(arrangement, columns, settings, options)
    state = initial_state(kind, order, columns, settings, arrangement, options)
    return Policy(name, state, parameters)

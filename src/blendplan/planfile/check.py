"""Checks of a plan against itself: what `blendplan verify` does."""

import hashlib
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from blendplan.errors import BlendplanError
from blendplan.planfile.columns import numbers
from blendplan.planfile.rejected import check_rejected
from blendplan.planfile.revive import plan_holding
from blendplan.planfile.well_formed import (
    check_column_values,
    check_metadata,
    check_step_sizes,
    none_of,
)
from blendplan.requests.rejects import NO_REJECTS


def column_digest(table: pa.Table, rejected: pa.Table = NO_REJECTS) -> str:
    """SHA-256 over the content of all columns, whatever the record batches they come in.

    Args:
        table: rows of a plan.
        rejected: the requests that it leaves out; where there are none, the digest is as without.
    """
    digest = hashlib.sha256()
    columns = [(name, table.column(name)) for name in table.column_names]
    if rejected.num_rows:
        columns += [(f"rejected.{name}", rejected.column(name)) for name in rejected.column_names]
    for name, column in columns:
        digest.update(f"{name}:{column.type}:{len(column)}\0".encode())
        for chunk in column.chunks:
            _update(digest, "validity", chunk)
        for chunk in column.chunks:
            _update(digest, "lengths", chunk)
        for chunk in column.chunks:
            _update(digest, "values", chunk)
    return digest.hexdigest()


def metadata_digest(metadata: dict[str, Any]) -> str:
    """SHA-256 over everything that a plan says of itself, but for this digest."""
    rest = {key: value for key, value in metadata.items() if key != "metadata_sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _update(digest: "hashlib._Hash", part: str, chunk: pa.Array) -> None:
    """Feed one part of one chunk to the digest; parts that a type does not have are empty."""
    if part == "validity":
        digest.update(pc.is_valid(chunk).cast(pa.uint8()).to_numpy().tobytes())
        return
    if pa.types.is_dictionary(chunk.type):
        chunk = chunk.dictionary_decode()
    if pa.types.is_list(chunk.type):
        if part == "lengths":
            lengths = pc.fill_null(pc.list_value_length(chunk), 0)
            digest.update(lengths.to_numpy().astype("<i8").data)
        else:
            digest.update(np.ascontiguousarray(chunk.flatten().to_numpy(zero_copy_only=False)).data)
    elif pa.types.is_string(chunk.type) or pa.types.is_binary(chunk.type):
        if part == "lengths":
            lengths = pc.fill_null(pc.binary_length(chunk), 0)
            digest.update(lengths.to_numpy().astype("<i8").data)
        elif chunk.null_count < len(chunk):
            offsets = np.frombuffer(chunk.buffers()[1], dtype=np.int32)
            first, last = offsets[chunk.offset], offsets[chunk.offset + len(chunk)]
            digest.update(memoryview(chunk.buffers()[2])[first:last])
    elif part == "values":
        digest.update(np.ascontiguousarray(chunk.to_numpy(zero_copy_only=False)).data)


def check_columns(
    table: pa.Table, metadata: dict[str, Any], rejected: pa.Table = NO_REJECTS
) -> list[str]:
    """Check a plan's columns and metadata; returns what was checked, one line each.

    Raises:
        BlendplanError: the first thing that is wrong, with the row and the values seen.
    """
    try:
        checked = [_check_digests(table, metadata, rejected)]
        _check_metadata(metadata)
        checked += _check_relations(table, metadata)
        _check_form(table, metadata)
        check_rejected(rejected, table, metadata)
        if rejected.num_rows:
            checked.append(f"{rejected.num_rows} rejected requests, none of them planned")
        for number, part in enumerate(metadata.get("parts", [])):
            rows = np.flatnonzero(numbers(table, "replica") == number)
            _check_relations(table.slice(rows[0], len(rows)), part)
    except RecursionError:
        raise _failed("the metadata are nested too deeply") from None
    except BlendplanError as error:
        raise _failed(str(error)) from None
    return checked


def _failed(what: str) -> BlendplanError:
    return BlendplanError(f"plan fails verification: {what}; make it again with `blendplan plan`")


def _check_metadata(metadata: dict[str, Any]) -> None:
    engine = metadata.get("engine")
    if isinstance(engine, dict):
        capacity, block = engine.get("kv_tokens"), engine.get("block_size")
        if type(capacity) is int and type(block) is int and min(capacity, block) < 1:
            raise BlendplanError(f"a KV cache of {capacity} tokens in blocks of {block}")
    try:
        check_metadata(metadata)
        json.dumps(metadata, allow_nan=False)
    except ValueError as error:
        raise BlendplanError(f"metadata lacks or mistypes a value: {error}") from None


def _check_form(table: pa.Table, metadata: dict[str, Any]) -> None:
    check_column_values(table)
    check_step_sizes(metadata)
    _check_replicas(table, metadata)


def _check_replicas(table: pa.Table, metadata: dict[str, Any]) -> None:
    """Each part has its rows together, in the order of the parts."""
    replica = numbers(table, "replica")
    parts = np.unique(replica)
    wanted = len(metadata.get("parts", [metadata]))
    # A part by itself keeps its number.
    if len(parts) != wanted or ("parts" in metadata and parts[-1] != wanted - 1):
        raise BlendplanError(f"the rows are not those of {wanted} replicas")
    if np.any(np.diff(replica) < 0):
        raise BlendplanError("rows of one replica do not stand together")
    for name in ("depth_first", "by_density"):
        ranks = numbers(table, name)
        for part in parts:
            mine = np.sort(ranks[replica == part])
            if not np.array_equal(mine, np.arange(len(mine))):
                raise BlendplanError(f"{name} of replica {part} are not ranks 0, 1, 2, ...")


def _check_relations(table: pa.Table, metadata: dict[str, Any]) -> list[str]:
    """What the columns and the metadata of a plan, or of one part, have to do with each other."""
    try:
        with np.errstate(all="ignore"):  # a missing number is named below
            return [
                _check_requests(table, metadata),
                _check_times(table, metadata),
                _check_capacity(table, metadata),
                _check_totals(table, metadata),
            ]
    except BlendplanError:
        raise
    except (ArithmeticError, AttributeError, TypeError, ValueError) as error:
        check_column_values(table)  # which says where
        raise BlendplanError(f"columns and metadata cannot be compared ({error})") from None


def _check_digests(table: pa.Table, metadata: dict[str, Any], rejected: pa.Table) -> str:
    if "columns_sha256" not in metadata:
        return "plan in memory, no checksums yet"
    if metadata["metadata_sha256"] != metadata_digest(metadata):
        raise BlendplanError("the metadata do not match their checksum, the file was altered")
    if metadata["columns_sha256"] != column_digest(table, rejected):
        raise BlendplanError("the columns do not match their checksum, the file was altered")
    return "checksums of columns and metadata"


def _check_requests(table: pa.Table, metadata: dict[str, Any]) -> str:
    rows = table.num_rows
    first = numbers(table, "answer") == 0
    n = int(np.count_nonzero(first))
    if metadata["requests"] != n:
        what = "rows" if n == rows else "rows with a first answer"
        raise BlendplanError(f"metadata says {metadata['requests']} requests, there are {n} {what}")
    if metadata.get("sequences", n) != rows:
        raise BlendplanError(
            f"metadata says {metadata.get('sequences', n)} sequences, there are {rows} rows"
        )
    firsts = table if n == rows else table.filter(pa.array(first))
    for name in ("request_id", "source_row"):
        distinct = pc.count_distinct(firsts.column(name)).as_py()
        if distinct != n:
            raise BlendplanError(f"{n - distinct} values of {name} occur more than once")
    if n < rows:
        _check_answers(table, firsts, first)
    position, replica = numbers(table, "position"), numbers(table, "replica")
    for part in np.unique(replica):
        mine = position[replica == part]
        if not np.array_equal(mine, np.arange(len(mine))):
            raise BlendplanError(f"positions of replica {part} are not 0, 1, 2, ... in row order")
    answers = "" if n == rows else f" with all of its answers, {rows} in all"
    return f"every one of {n} requests exactly once{answers}"


def _check_answers(table: pa.Table, firsts: pa.Table, first: NDArray[np.bool_]) -> None:
    """The answers of a request are 0, 1, 2, ... in rows that stand together."""
    answer, place = numbers(table, "answer"), np.flatnonzero(first)
    wanted = np.arange(len(first)) - place[np.cumsum(first) - 1] if first[0] else -1
    none_of(answer != wanted, "answers of a request are not 0, 1, 2, ... in rows that follow")
    owner = pa.array(np.cumsum(first) - 1)
    for name in ("request_id", "source_row", "replica", "prompt_tokens", "output_tokens_known"):
        owners = firsts.column(name).take(owner)
        alike = pc.equal(table.column(name), owners).fill_null(False).to_numpy()
        missing = pc.and_(table.column(name).is_null(), owners.is_null()).to_numpy()
        none_of(~(alike | missing), f"{name} is another than in the row of the first answer")


def _check_capacity(table: pa.Table, metadata: dict[str, Any]) -> str:
    engine = metadata["engine"]
    capacity, block = engine["kv_tokens"], engine["block_size"]
    left = numbers(table, "memory_left_tokens")
    right = numbers(table, "memory_right_tokens")
    # Each half is rounded to whole tokens on its own.
    none_of(
        (left < 0) | (right < 0) | (left + right > capacity + 1),
        "memory partition exceeds the KV cache",
    )
    prompts = numbers(table, "prompt_tokens").astype(np.int64)
    outputs = np.maximum(1, np.rint(numbers(table, "output_tokens_mean"))).astype(np.int64)
    # In groups that keep all tokens; what the others hold comes on top.
    blocks = -(-plan_holding(metadata).growth * (prompts + outputs - 1) // block)
    none_of(blocks > capacity // block, "request is longer than the whole KV cache")
    budget = numbers(table, "prefill_budget_tokens")
    none_of(
        (budget < 1) | (budget > engine["max_num_batched_tokens"]),
        "prefill budget is outside 1 to max_num_batched_tokens",
    )
    cached = numbers(table, "cached_tokens")
    none_of((cached < 0) | (cached >= prompts), "cached tokens are not below the prompt length")
    _check_concurrency(table, engine["max_num_seqs"])
    return f"KV capacity of {capacity} tokens and {engine['max_num_seqs']} sequences"


def _check_concurrency(table: pa.Table, most: int) -> None:
    starts = numbers(table, "start_s")
    finishes = numbers(table, "finish_s")
    replica = numbers(table, "replica")
    for part in np.unique(replica):
        begun = np.sort(starts[replica == part])
        ended = np.searchsorted(np.sort(finishes[replica == part]), begun, side="right")
        running = np.arange(1, len(begun) + 1) - ended
        if len(running) and running.max() > most:
            at = float(begun[np.argmax(running)])
            raise BlendplanError(f"{running.max()} requests run at {at:.3f} s, {most} are allowed")


def _check_times(table: pa.Table, metadata: dict[str, Any]) -> str:
    start, finish = numbers(table, "start_s"), numbers(table, "finish_s")
    none_of(~(start >= 0) | ~(finish > start), "request does not end after it starts")
    replica, batch = numbers(table, "replica"), numbers(table, "batch")
    for part in np.unique(replica):
        mine = replica == part
        if np.any(np.diff(batch[mine]) < 0) or np.any(np.diff(start[mine]) < 0):
            raise BlendplanError(f"rows of replica {part} are not in order of admission")
    latest, stated = float(finish.max(initial=0.0)), metadata["predicted"]["makespan_s"]
    if not np.isclose(latest, stated, rtol=1e-9):
        raise BlendplanError(f"the last request ends at {latest} s, metadata says {stated} s")
    return "order of admission and simulated times"


def _check_totals(table: pa.Table, metadata: dict[str, Any]) -> str:
    predicted = metadata["predicted"]
    prompts = int(numbers(table, "prompt_tokens").sum(dtype=np.int64))
    if prompts != predicted["prompt_tokens"]:
        raise BlendplanError(
            f"prompts have {prompts} tokens in all, metadata says {predicted['prompt_tokens']}"
        )
    cached = int(numbers(table, "cached_tokens").sum(dtype=np.int64))
    planned = metadata["prefix_sharing"]["planned"]
    if not np.isclose(cached / max(1, prompts), planned, atol=1e-9):
        raise BlendplanError(
            f"{cached} of {prompts} prompt tokens are cached, metadata says {planned:.6f}"
        )
    ratio = metadata["bound_ratio"]
    if not 0 < ratio <= 1 + 1e-9:
        raise BlendplanError(f"bound_ratio is {ratio}, it must be between 0 and 1")
    return "totals, sharing and bound against the metadata"

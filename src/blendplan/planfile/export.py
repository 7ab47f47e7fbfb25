"""`export`: the requests of a plan in its order, as a batch file for any engine or service."""

import hashlib
import sys
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from blendplan.checks.arguments import flag, instance, text, whole
from blendplan.checks.arguments import path as argument_path
from blendplan.errors import BlendplanError
from blendplan.planfile.batch_lines import batch_block, batch_line
from blendplan.planfile.plan import Plan
from blendplan.printable import show
from blendplan.requests.record import BadRecordError
from blendplan.whole_file import replacing

STANDARD_OUTPUT = "-"
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_COLUMNS = ("request_id", "prompt_token_ids", "body", "max_tokens", "output_tokens_known")
_REQUESTS_AT_ONCE = 1 << 14


def export(
    plan: Plan,
    path: Path | str,
    *,
    replica: int | None = None,
    shards: int | None = None,
    priority: bool = False,
    model: str | None = None,
) -> list[Path]:
    """Write the requests of a plan in its order, as OpenAI batch lines.

    A line that came as a batch line is written as it came; any other becomes the batch line that
    means the same. A known output length that was a field of the line, or a column, stands beside
    the body as ``output_tokens``. A request with several answers is one line.

    Args:
        plan: what to write.
        path: the file, compressed where its name ends in ``.gz`` or ``.zst``; ``-`` is standard
            output. A file that is there is replaced when all is written.
        replica: which part of a plan for several replicas to write, counted from 0.
        shards: write as many files, each with a run of neighbours in the order and with as many
            requests as the others, or one less: ``ordered.jsonl`` becomes
            ``ordered-00000-of-00004.jsonl`` and so on.
        priority: give each body the place of its request, from 0, as ``priority``.
        model: for bodies that name none.

    Returns:
        the files that were written; none for standard output.

    Raises:
        BlendplanError: the plan is for several replicas and none is named, or runs identical
            requests once; a path cannot be written, or there are fewer requests than shards.
    """
    instance("plan", plan, Plan, "give what plan() or Plan.read() returns")
    priority = flag("priority", priority)
    model = None if model is None else text("model", model, "give a model's name")
    if "repeats" in plan.metadata:
        raise BlendplanError(
            "the plan runs identical requests once, which no other engine knows of; plan without "
            "--dedupe to export it"
        )
    plan = _part(plan, replica)
    firsts = np.flatnonzero(plan.column("answer") == 0)
    if shards is not None:
        shards = whole("shards", shards, 1, max(1, len(firsts)))
    if str(path) == STANDARD_OUTPUT:
        if shards is not None:
            raise BlendplanError("shards are several files; give a path, not '-'")
        for block in _blocks(plan, firsts, 0, priority, model):
            sys.stdout.buffer.write(block)
        sys.stdout.buffer.flush()
        return []
    target = argument_path("path", path)
    _refuse_table(target)
    paths = [target] if shards is None else shard_paths(target, shards)
    for name in paths:
        keep_sources(name, {str(plan.metadata["request_file_sha256"])})
    cuts = np.linspace(0, len(firsts), len(paths) + 1).astype(np.int64)
    with ExitStack() as files:
        # All appear when the last is written.
        temporaries = [files.enter_context(replacing(name)) for name in paths]
        for place, temporary in enumerate(temporaries):
            start, end = cuts[place : place + 2].tolist()
            with _compressed(temporary, target) as file:
                for block in _blocks(plan, firsts[start:end], start, priority, model):
                    file.write(block)
    return paths


def keep_sources(path: Path, digests: Collection[str]) -> None:
    """The files that a plan was made from are not replaced: they have the input's order and lines.

    Args:
        path: where something is to be written.
        digests: SHA-256 of these files, hexadecimal.

    Raises:
        BlendplanError: one of them is at this path.
    """
    if not path.is_file():
        return
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() in digests:
            raise BlendplanError(
                f"cannot write {path}: it is the file that the plan was made from; choose another "
                "output path"
            )


def shard_paths(path: Path, shards: int) -> list[Path]:
    """``name-00000-of-00003.jsonl``, ``name-00001-of-00003.jsonl``, ... for ``name.jsonl``."""
    stem, dot, endings = path.name.partition(".")
    return [
        path.with_name(f"{stem}-{shard:05d}-of-{shards:05d}{dot}{endings}")
        for shard in range(shards)
    ]


def _part(plan: Plan, replica: int | None) -> Plan:
    replicas = len(plan.metadata.get("parts", [plan]))
    if replica is None and replicas > 1:
        raise BlendplanError(
            f"the plan is for {replicas} replicas; export each by itself, replica 0 to "
            f"{replicas - 1}"
        )
    return plan.part(replica or 0)


def _refuse_table(path: Path) -> None:
    if path.suffix in (".parquet", ".pq", ".arrow", ".feather", ".ipc"):
        raise BlendplanError(
            f"{path} is named {path.suffix}, but what is exported are JSON lines; let the name end "
            "in .jsonl, .jsonl.gz or .jsonl.zst"
        )


@contextmanager
def _compressed(temporary: Path, path: Path) -> Iterator[Any]:
    with pa.output_stream(str(temporary), compression=_COMPRESSIONS.get(path.suffix)) as file:
        yield file


def _blocks(
    plan: Plan, firsts: NDArray[np.int64], rank: int, priority: bool, model: str | None
) -> Iterator[bytes]:
    """The lines of some requests, some thousands at a time.

    Args:
        firsts: row of the first answer of each request; int64 [m].
        rank: place of the first of these requests in the order of all.
    """
    ends = np.append(np.flatnonzero(plan.column("answer") == 0), len(plan))
    answers = np.diff(ends)[np.searchsorted(ends, firsts)]
    table = plan.table.select(_COLUMNS)
    for start in range(0, len(firsts), _REQUESTS_AT_ONCE):
        rows = firsts[start : start + _REQUESTS_AT_ONCE]
        # Rows in between are further answers, which hold no texts.
        part = table.slice(rows[0], rows[-1] - rows[0] + 1).take(pa.array(rows - rows[0]))
        places = range(rank + start, rank + start + len(rows))
        bodies = part.column("body").to_pylist()
        block = None
        if None not in bodies:
            block = batch_block(bodies, places if priority else None, model)
        if block is None:
            lines = _one_by_one(part, answers[start : start + len(rows)], places, priority, model)
            block = b"\n".join([*lines, b""])
        yield block


def _one_by_one(
    table: pa.Table, answers: NDArray[np.int64], places: range, priority: bool, model: str | None
) -> Iterator[bytes]:
    columns = (table.column(name) for name in _COLUMNS)
    for name, prompt, body, cap, tokens, count, place in zip(
        *columns, answers.tolist(), places, strict=True
    ):
        try:
            yield batch_line(
                name.as_py(),
                body.as_py(),
                prompt.values.to_numpy() if prompt.is_valid else None,
                answers=count,
                max_tokens=cap.as_py(),
                output_tokens=tokens.as_py(),
                priority=place if priority else None,
                model=model,
            )
        except BadRecordError as error:
            raise BlendplanError(
                f"request {show(name.as_py())} of the plan: {error}; plan the requests again"
            ) from None

"""`read_requests`: a request file of any kind to `Requests`."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from blendplan.checks.arguments import function
from blendplan.checks.arguments import path as argument_path
from blendplan.errors import BlendplanError
from blendplan.printable import show
from blendplan.requests.blocks import Blocks
from blendplan.requests.collect import Collector
from blendplan.requests.columns import Requests, repeated_ids, select
from blendplan.requests.fingerprint import tokenizer_fingerprint
from blendplan.requests.lines import Reading
from blendplan.requests.load_tokenizer import has_tokenizer
from blendplan.requests.media import Media
from blendplan.requests.rejects import Failing, Rejecting, rejecting
from blendplan.requests.remarks import Remarks
from blendplan.requests.shape import Shape
from blendplan.requests.source import Progress, Source
from blendplan.requests.tokenizer import Tokenizer
from blendplan.requests.tokens import Estimate, Tokens
from blendplan.requests.write import request_line


def read_requests(
    path: Path | str,
    *,
    model_dir: Path | str | None = None,
    on_error: Literal["fail", "skip"] = "fail",
    rejects: Path | str | None = None,
    progress: Progress | None = None,
    **shape: Any,
) -> Requests:
    """Read a request file: JSONL or a JSON array (plain, gzip or zstd), CSV, Parquet, or Arrow IPC.

    Args:
        path: the request file; its kind is told by its content.
        model_dir: a model directory; when it holds a tokenizer, text becomes token ids through it,
            and messages through its chat template. Otherwise four UTF-8 bytes are counted as one
            token.
        on_error: ``fail`` raises at the first bad line; ``skip`` leaves bad lines out and writes
            them to `rejects`.
        rejects: where ``skip`` writes the bad lines, each with the reason; by default the name of
            the request file with ``.rejects.jsonl`` added.
        progress: called now and then with the bytes read and the size of the file.
        shape: what becomes of rows and lines that are not requests yet, or do not say all, as
            attributes of `Shape`: ``prompt_column``, ``template``, ``system``, ``chat``,
            ``id_column``, ``max_tokens`` and ``parameters``.

    Returns:
        all requests in file order, ids unique.

    Raises:
        BlendplanError: the file cannot be read, holds no request, or (with ``fail``) a bad one.
    """
    path = argument_path("path", path)
    if not isinstance(on_error, str) or on_error not in ("fail", "skip"):
        raise BlendplanError(f"on_error is {show(on_error)}; give 'fail' or 'skip'")
    if progress is not None:
        function("progress", progress)
    wanted = Shape.of("read_requests", shape)
    seen = Remarks()
    tokens, directory = tokens_of(model_dir, seen)
    with Source(path, progress) as source:
        rejects_path = _rejects_path(source, rejects)
        outcome: AbstractContextManager[Failing | Rejecting] = nullcontext(
            Failing(source.name, source.unit)
        )
        if on_error == "skip":
            outcome = rejecting(rejects_path, source.unit)
        with outcome as reject:
            reading = Reading(tokens, reject, seen, wanted)
            requests = _without_repeated(_read(source, reading), source, reject)
        if len(requests) == 0:
            if reject.rejected:
                raise BlendplanError(
                    f"{source.name}: none of its {reject.rejected} {source.unit}s is a good "
                    f"request; the reasons are in {rejects_path}"
                )
            raise BlendplanError(f"{source.name} holds no request; give at least one")
    return replace(
        requests,
        rejects=reject.columns(),
        remarks=seen.lines(),
        tokenizer=None if directory is None else tokenizer_fingerprint(directory),
    )


def tokens_of(model_dir: Path | str | None, seen: Remarks) -> tuple[Tokens, Path | None]:
    """What turns text into tokens, and the directory of its tokenizer, if that is one."""
    if model_dir is None:
        return Estimate(), None
    directory = argument_path("model_dir", model_dir)
    if not directory.is_dir():
        raise BlendplanError(f"{directory} is not a folder; give the folder of a model")
    if has_tokenizer(directory):
        return Tokenizer(directory, seen), directory
    return Estimate(Media(directory)), None


def _rejects_path(source: Source, rejects: Path | str | None) -> Path:
    if rejects is None:
        return source.path.with_name(f"{source.path.name}.rejects.jsonl")
    path = argument_path("rejects", rejects)
    if path.exists() and path.samefile(source.path):
        raise BlendplanError(f"{path} is the request file itself; write the rejects elsewhere")
    return path


def _read(source: Source, reading: Reading) -> Requests:
    """All good requests, ids not yet checked against each other."""
    blocks = Blocks(source, reading)
    collector = Collector(blocks.expected_tokens, blocks.expected_body_bytes)
    for block in blocks:
        collector.add(block)
    return replace(collector.finish(source.path, source.sha256()), columns=blocks.columns)


def _without_repeated(requests: Requests, source: Source, reject: Failing | Rejecting) -> Requests:
    """Reject every request whose id an earlier one has."""
    repeated = repeated_ids(requests.ids)
    if not repeated:
        return requests
    rows = requests.source_row
    for index, earlier in repeated.items():
        reason = (
            f"the id {show(requests.ids[index].as_py())} is that of {source.unit} "
            f"{rows[earlier] + 1} already; ids must be unique (a missing one is the number of the "
            f"{source.unit})"
        )
        reject(int(rows[index]), reason, request_line(requests, index))
    kept = np.delete(np.arange(len(requests), dtype=np.int64), list(repeated))
    return select(requests, kept)

"""`write_requests`: a request file that any engine, and `read_requests`, can take."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from blendplan.checks.arguments import instance, whole_numbers
from blendplan.checks.arguments import path as argument_path
from blendplan.errors import BlendplanError
from blendplan.requests.columns import Requests, select
from blendplan.requests.record import BadRecordError, compact_json, parse_line
from blendplan.whole_file import replacing

_COMPRESSIONS = {".jsonl": None, ".jsonl.gz": "gzip", ".jsonl.zst": "zstd"}
_PROMPTS = ("prompt_token_ids", "prompt", "messages")
_NOT_SAMPLING = {*_PROMPTS, "id", "custom_id", "output_tokens"}
_ROWS_AT_ONCE = 1 << 14


def write_requests(
    requests: Requests, path: Path | str, rows: NDArray[np.int64] | None = None
) -> None:
    """Write requests to a file, whole or not at all.

    A path that ends in ``.jsonl`` (also ``.jsonl.gz``, ``.jsonl.zst``) gets the original lines,
    with the id put in where a line has none, or else plain lines with ``prompt_token_ids``. A path
    that ends in ``.parquet`` gets the columns ``id``, ``prompt_token_ids``, ``output_tokens``, and
    one for each sampling parameter.

    Args:
        requests: the requests.
        path: the file to write.
        rows: indices of the requests to write, in this order; int64 [k]. All by default.

    Raises:
        BlendplanError: the path cannot be written or has another suffix; or Parquet is asked for
            requests whose token ids are estimates or whose parameters are of mixed types.
    """
    instance("requests", requests, Requests, "give what read_requests() returns")
    path = argument_path("path", path)
    rows = None if rows is None else whole_numbers("rows", rows, 0, len(requests) - 1)
    if path.name.endswith(".parquet"):
        chosen = requests if rows is None else select(requests, rows)
        _write_parquet(chosen, path)
        return
    ending = next((ending for ending in _COMPRESSIONS if path.name.endswith(ending)), None)
    if ending is None:
        raise BlendplanError(
            f"cannot write {path}: unknown kind of request file; "
            "let the name end in .jsonl, .jsonl.gz, .jsonl.zst or .parquet"
        )
    indices = range(len(requests)) if rows is None else rows.tolist()
    with (
        replacing(path) as temporary,
        pa.output_stream(str(temporary), compression=_COMPRESSIONS[ending]) as file,
    ):
        for index in indices:
            file.write(request_line(requests, index) + b"\n")


def request_line(requests: Requests, index: int) -> bytes:
    """One request as a JSON line: its own where it has one that holds the prompt.

    Raises:
        BlendplanError: its body is not a JSON object.
    """
    name = requests.ids[index].as_py()
    body, fields = _body(requests, index)
    inner = fields.get("body")
    if body and isinstance(inner, dict):
        return _with_id(body, fields, "custom_id", name)
    if body and any(fields.get(key) is not None for key in _PROMPTS):
        return _with_id(body, fields, "id", name)
    line = {"id": name, "prompt_token_ids": requests.prompt(index).tolist()}
    line |= _sampling(requests, index)
    if requests.output_tokens[index] >= 0:
        line["output_tokens"] = int(requests.output_tokens[index])
    return compact_json(line).encode("utf-8")


def _body(requests: Requests, index: int) -> tuple[bytes, Mapping[str, Any]]:
    """The body of a request as bytes and parsed; empty where it has none."""
    body = None if requests.bodies is None else requests.bodies[index].as_py()
    if body is None:
        return b"", {}
    try:
        return body, parse_line(body)
    except BadRecordError as error:
        name = requests.ids[index].as_py()
        raise BlendplanError(f"the body of request {name!r}: {error}") from error


def _with_id(line: bytes, fields: Mapping[str, Any], key: str, name: str) -> bytes:
    """The line as it is when it names its request, else with the id as its first field."""
    if fields.get("custom_id") is not None or fields.get("id") is not None:
        return line
    if key in fields:  # a null, which would win over a field before it
        return compact_json({**fields, key: name}).encode("utf-8")
    return b"{" + f'"{key}":{compact_json(name)},'.encode() + line[1:]


def _sampling(requests: Requests, index: int) -> dict[str, Any]:
    """Sampling parameters of one request, the cap on its output included."""
    _, fields = _body(requests, index)
    inner = fields.get("body")
    fields = inner if isinstance(inner, dict) else fields
    sampling = {key: value for key, value in fields.items() if key not in _NOT_SAMPLING}
    answers = 1 if requests.answers is None else int(requests.answers[index])
    if answers > 1:
        sampling["n"] = answers
    cap = int(requests.max_tokens[index])
    if cap >= 0 and sampling.get("max_completion_tokens") is None:
        sampling["max_tokens"] = cap
    return sampling


def _write_parquet(requests: Requests, path: Path) -> None:
    if requests.estimated_tokens:
        raise BlendplanError(
            f"cannot write {path}: the prompts are text and their token ids only estimates; "
            "write .jsonl instead"
        )
    columns = {"id": requests.ids} | _sampling_columns(requests, path)
    if (requests.output_tokens >= 0).any():
        known = requests.output_tokens
        columns["output_tokens"] = pa.array(known, mask=known < 0)
    table = pa.table(columns)
    schema = table.schema.insert(1, pa.field("prompt_token_ids", pa.large_list(pa.int32())))
    with (
        replacing(path) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
    ):
        for start in range(0, len(requests), _ROWS_AT_ONCE):
            part = table.slice(start, _ROWS_AT_ONCE)
            offsets = requests.offsets[start : start + len(part) + 1]
            values = requests.token_ids[offsets[0] : offsets[-1]]
            prompts = pa.LargeListArray.from_arrays(
                pa.array(offsets - offsets[0]), pa.array(values)
            )
            writer.write_table(part.add_column(1, schema.field(1), prompts))


def _sampling_columns(requests: Requests, path: Path) -> dict[str, pa.Array]:
    """A column for each sampling parameter that any request has."""
    if requests.bodies is None:
        caps, found = requests.max_tokens, {}
        if (caps >= 0).any():
            found["max_tokens"] = pa.array(caps, mask=caps < 0)
        if requests.answers is not None:
            found["n"] = pa.array(requests.answers)
        return found
    rows = [_sampling(requests, index) for index in range(len(requests))]
    columns = {}
    for name in dict.fromkeys(key for row in rows for key in row):
        try:
            columns[name] = pa.array([row.get(name) for row in rows])
        except (pa.ArrowException, ValueError, OverflowError) as error:
            raise BlendplanError(
                f'cannot write {path}: "{name}" has values of different types, '
                "which a column cannot hold; write .jsonl instead"
            ) from error
    return columns

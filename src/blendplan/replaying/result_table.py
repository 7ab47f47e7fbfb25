"""`write_table`: result lines as a Parquet file, beside the columns of the data they answer.

One row for each answer: a request that asks for several has as many, and what is said of it as a
whole (its tokens, its response, its error) stands in the first of them.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from blendplan.replaying.result_lines import source_row
from blendplan.replaying.usage import usage_of
from blendplan.requests.beside import Beside, NamedLine
from blendplan.requests.output_table import ANSWER, ID, MARK

_MOST_ROWS = 1 << 14
_MOST_BYTES = 64 << 20
_OK, _NO_STATUS = 200, 10_000

_Row = dict[str, Any]


def write_table(
    lines: Iterable[bytes], beside: Beside, requests: Iterable[NamedLine], file: IO[bytes]
) -> None:
    """Write results as a table.

    Args:
        lines: result lines in the order of the table.
        beside: what stands beside the answers.
        requests: what is known of the request of each line.
        file: where the table goes.
    """
    fields = [pa.field(ID, beside.id_type), *beside.fields, *ANSWER]
    schema = pa.schema(fields, metadata=MARK)
    with pq.ParquetWriter(pa.PythonFile(file, mode="w"), schema, compression="zstd") as writer:
        for answers, asked in _groups(zip(lines, requests, strict=True)):
            counts = [len(rows) for rows in answers]
            columns = [
                _spread(beside.ids(asked), counts),
                *(_spread(column, counts) for column in beside.columns(asked)),
                *(
                    pa.array([row.get(field.name) for rows in answers for row in rows], field.type)
                    for field in ANSWER
                ),
            ]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))


def _groups(
    lines: Iterator[tuple[bytes, NamedLine]],
) -> Iterator[tuple[list[list[_Row]], list[NamedLine]]]:
    """Rows of some thousand requests at a time, with these."""
    answers: list[list[_Row]] = []
    asked: list[NamedLine] = []
    held = 0
    for line, request in lines:
        answers.append(_rows(json.loads(line)))
        asked.append(request)
        held += len(line) + len(request.line or b"")
        if len(asked) >= _MOST_ROWS or held >= _MOST_BYTES:
            yield answers, asked
            answers, asked, held = [], [], 0
    yield answers, asked


def _spread(column: pa.Array, counts: list[int]) -> pa.Array:
    """Values of requests as those of their answers."""
    if all(count == 1 for count in counts):
        return column
    places = [place for place, count in enumerate(counts) for _ in range(count)]
    return column.take(pa.array(places, pa.int64()))


def _rows(line: Mapping[str, Any]) -> list[_Row]:
    """The rows of one result line, at least one."""
    response = line.get("response")
    body = response.get("body") if isinstance(response, dict) else None
    rows = [{}] if not isinstance(body, dict) else _choices(body)
    for number, row in enumerate(rows):
        row |= {"choice": number, "source_row": source_row(line)}
    if isinstance(response, dict):
        rows[0]["status_code"] = _status(response)
    if line.get("error") is not None:
        rows[0]["error"] = _json(line["error"])
    if body is not None:
        rows[0]["response"] = _json(body)
        usage = usage_of(body)
        rows[0] |= {
            "prompt_tokens": usage.prompt_tokens,
            "cached_tokens": usage.cached_tokens,
            "output_tokens": usage.completion_tokens,
        }
    return rows


def _status(response: Mapping[str, Any]) -> int:
    """The HTTP status of a response; services write it as a text, or leave it out."""
    status = response.get("status_code")
    if isinstance(status, str) and status.isascii() and status.isdecimal():
        status = int(status[:4])
    if isinstance(status, int) and 0 <= status < _NO_STATUS:
        return status
    return _OK if response.get("body") is not None else 0


def _choices(body: Mapping[str, Any]) -> list[_Row]:
    """Text of each answer in a body, and why it ended."""
    choices = body.get("choices")
    if isinstance(choices, list) and choices:
        return [_choice(choice if isinstance(choice, dict) else {}) for choice in choices]
    output = body.get("output")
    if isinstance(output, list):
        return [{"text": _written(output), "finish_reason": _text(body.get("status"))}]
    return [{}]


def _choice(choice: Mapping[str, Any]) -> _Row:
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else choice.get("text")
    return {"text": _text(text), "finish_reason": _text(choice.get("finish_reason"))}


def _written(output: list[Any]) -> str | None:
    """What a model has written, of the items of ``/v1/responses``."""
    items = [item for item in output if isinstance(item, dict) and item.get("type") == "message"]
    parts = [part for item in items for part in item.get("content") or []]
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    found = [text for text in texts if isinstance(text, str)]
    return _text("".join(found)) if found else None


def _text(value: object) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else _json(value)
    # Half a surrogate pair can come out of a detokenizer; it has no UTF-8 form.
    return text.encode("utf-8", errors="replace").decode("utf-8")


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text.encode("utf-8", errors="replace").decode("utf-8")

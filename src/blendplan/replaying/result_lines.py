"""Results as batch output lines: one JSON object per request, its body as the engine wrote it.

The shape is that of vLLM's batch runner (vllm/entrypoints/launchers/run_batch.py): an answer has
its body under ``response``, an error of the engine's server its status there and the server's own
words under ``error``.
"""

import json
from collections.abc import Mapping
from typing import Any

from blendplan.requests.record import compact_json

_ID = "batch_req_"


def answer_line(*, source_row: int, custom_id: str | int, status: int, body: bytes) -> bytes:
    """The line of a request that the engine's server answered, without the newline.

    Args:
        source_row: row of the request in its file.
        custom_id: the request's id.
        status: HTTP status.
        body: JSON of the server, in one line.
    """
    answer, error = (body, b"null") if status < 400 else (b"null", body)
    return (
        b'{"id":"%b","custom_id":%b,"response":{"status_code":%d,"request_id":"req_%d",'
        b'"body":%b},"error":%b}'
        % (
            f"{_ID}{source_row}".encode(),
            _dump(custom_id),
            status,
            source_row,
            _on_one_line(answer),
            _on_one_line(error),
        )
    )


def error_line(*, source_row: int, custom_id: str | int, code: str, message: str) -> bytes:
    """The line of a request that no server answered, without the newline."""
    return _dump(
        {
            "id": f"{_ID}{source_row}",
            "custom_id": custom_id,
            "response": None,
            "error": {"code": code, "message": message},
        }
    )


def renamed(line: Mapping[str, Any], *, source_row: int) -> bytes:
    """A line of another results file as the line of ``source_row``."""
    return _dump({**line, "id": f"{_ID}{source_row}"})


def source_row(line: Mapping[str, Any]) -> int:
    """The row of the request file that a line of ours answers; -1 if it is not one of ours."""
    name = line.get("id")
    if not isinstance(name, str) or not name.startswith(_ID):
        return -1
    row = name[len(_ID) :]
    # A row of more digits is none of any file, and Python would refuse to read thousands of them.
    return int(row) if row.isascii() and row.isdecimal() and len(row) < 20 else -1


def _on_one_line(body: bytes) -> bytes:
    """JSON without line ends: servers write none, but nothing forbids them."""
    return body if b"\n" not in body and b"\r" not in body else _dump(json.loads(body))


def _dump(value: Any) -> bytes:
    # Half a surrogate pair can come out of a detokenizer; it has no UTF-8 form.
    return compact_json(value).encode("utf-8", errors="replace")

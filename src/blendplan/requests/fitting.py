"""Requests that no engine of a given size can ever run."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from blendplan.errors import BlendplanError
from blendplan.requests.columns import Requests, select
from blendplan.whole_file import replacing


def too_long(requests: Requests, kv_tokens: int) -> NDArray[np.int64]:
    """Requests whose prompt and known output exceed a KV cache of that many tokens; int64.

    The last generated token is never written to the cache. An output of unknown length counts as
    one token: its prediction is cut to what fits.
    """
    outputs = np.maximum(1, requests.output_tokens)
    total = requests.prompt_tokens.astype(np.int64) + outputs - 1
    return np.flatnonzero(total > kv_tokens)


def check_fits(requests: Requests, kv_tokens: int) -> None:
    """Raise a BlendplanError that names the longest request when some can never run."""
    rows = too_long(requests, kv_tokens)
    if not len(rows):
        return
    sizes = requests.prompt_tokens[rows].astype(np.int64) + requests.output_tokens[rows]
    others = {1: "", 2: ", nor can one other"}.get(len(rows), f", nor can {len(rows) - 1} others")
    raise BlendplanError(
        f"{_where(requests, int(rows[np.argmax(sizes)]))} can never fit the KV cache of "
        f"{kv_tokens} tokens{others}; --on-error skip leaves such requests out, --tp, --kv-dtype "
        "or another GPU make the cache larger"
    )


def leave_out_too_long(requests: Requests, kv_tokens: int, rejects: Path) -> Requests:
    """The requests that fit; the others are added to a rejects file, with the reason."""
    rows = too_long(requests, kv_tokens)
    if not len(rows):
        return requests
    before = rejects.read_bytes() if rejects.exists() else b""
    with replacing(rejects) as temporary, temporary.open("wb") as file:
        file.write(before)
        for row in rows.tolist():
            reason = f"{_where(requests, row)} can never fit the KV cache of {kv_tokens} tokens"
            entry: dict[str, object] = {"line": int(requests.source_row[row]) + 1}
            entry |= {"reason": reason, "id": requests.ids[row].as_py()}
            if requests.bodies is not None and requests.bodies[row].is_valid:
                entry["original"] = requests.bodies[row].as_py().decode("utf-8")
            file.write(json.dumps(entry, ensure_ascii=False).encode("utf-8") + b"\n")
    keep = np.ones(len(requests), dtype=np.bool_)
    keep[rows] = False
    fitting = select(requests, np.flatnonzero(keep))
    return replace(fitting, rejected=requests.rejected + len(rows))


def _where(requests: Requests, row: int) -> str:
    source = requests.source or "the request set"
    output = int(requests.output_tokens[row])
    length = f"{int(requests.prompt_tokens[row])} prompt tokens"
    if output > 0:
        length += f" and {output} output tokens"
    line = int(requests.source_row[row]) + 1
    return f"{source}, line {line} (id {requests.ids[row].as_py()!r}): {length}"

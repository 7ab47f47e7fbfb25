"""Identical requests that run once: one is kept, and knows of the others that get its answer.

The others ride with the line of the one that is kept, under `REPEATS`, through the plan to the
results, as source columns do; no engine sees them.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from blendplan.requests.bad import BadRecordError
from blendplan.requests.beside import source_fields
from blendplan.requests.columns import Requests, select
from blendplan.requests.endpoints import (
    REPEATS,
    SOURCE_COLUMNS,
    WITHOUT_OUTPUT,
    endpoint_of,
    is_known,
)
from blendplan.requests.record import compact_json, json_line, parse_line, stated_id

_NAMES = frozenset(["custom_id", "id", "method", SOURCE_COLUMNS, REPEATS])
_PROMPTS = ("prompt", "messages", "input")
_KEY = compact_json(REPEATS).encode()


class Repeat(NamedTuple):
    """A request that another one answers.

    Attributes:
        source_row: its row in the request file, from 0.
        id: as it came.
        source: what its line holds of its source, see `source_fields`.
    """

    source_row: int
    id: str | int
    source: Mapping[str, Any]


def run_once(requests: Requests) -> Requests:
    """Keep one of each set of identical requests whose answers are the same by what they ask.

    Identical are requests of one prompt and one set of parameters, whatever their ids and the
    fields that no engine knows. Answers are the same where the temperature is 0 or a seed is
    stated, and where nothing is generated (embeddings, scores, rankings). The first in the file is
    kept; `Requests.copies` says how many others it answers.
    """
    n = len(requests)
    first: dict[bytes, int] = {}
    kept_for = np.arange(n)
    for index in _candidates(requests):
        key = _identity(requests, index)
        if key is not None:
            kept_for[index] = first.setdefault(key, index)
    others = np.flatnonzero(kept_for != np.arange(n))
    if not len(others):
        return requests
    copies = np.bincount(kept_for[others], minlength=n)
    keep = np.flatnonzero(kept_for == np.arange(n))
    told = _with_repeats(requests, kept_for, others)
    return select(replace(requests, bodies=told, copies=copies), keep)


def repeats_of(line: bytes | None) -> list[Repeat]:
    """The requests that get the answer of the one with this line, of a plan that has repeats."""
    if line is None or _KEY not in line:
        return []
    try:
        found = parse_line(line).get(REPEATS)
    except BadRecordError:
        return []
    return [Repeat(*entry) for entry in found or []]


def rows_with_repeats(bodies: pa.ChunkedArray) -> Iterator[int]:
    """Rows of a plan whose requests may answer others too."""
    first = 0
    for chunk in bodies.chunks:
        has = pc.match_substring(chunk, _KEY.decode()).fill_null(False)
        yield from (first + np.flatnonzero(has.to_numpy(zero_copy_only=False))).tolist()
        first += len(chunk)


def _candidates(requests: Requests) -> Iterator[int]:
    """Indices of requests whose prompt another one has too, in the order of the file."""
    if requests.bodies is None:
        return
    seen: dict[bytes, int] = {}
    keys = []
    for index in range(len(requests)):
        key = blake2b(requests.prompt(index).tobytes(), digest_size=16).digest()
        seen[key] = seen.get(key, 0) + 1
        keys.append(key)
    yield from (index for index, key in enumerate(keys) if seen[key] > 1)


def _identity(requests: Requests, index: int) -> bytes | None:
    """What requests with the same answer have in common; None where answers may differ."""
    body = requests.bodies[index].as_py() if requests.bodies is not None else None
    if body is None:
        return None
    fields = parse_line(body)
    inner = fields.get("body")
    asked = inner if isinstance(inner, dict) else fields
    url = fields.get("url") if asked is inner else None
    endpoint = None if url is None else endpoint_of(url)
    has_one_answer = asked.get("temperature") == 0 or asked.get("seed") is not None
    if not has_one_answer and endpoint not in WITHOUT_OUTPUT:
        return None
    said = {
        name: _one_form(value)
        for name, value in asked.items()
        if name not in _NAMES and value is not None and is_known(name, in_body=True)
    }
    digest = blake2b(json.dumps([endpoint, said], sort_keys=True).encode(), digest_size=16)
    digest.update(requests.output_tokens[index].tobytes())
    if not any(asked.get(name) is not None for name in _PROMPTS):
        digest.update(requests.prompt(index).tobytes())
    return digest.digest()


def _one_form(value: Any) -> Any:
    """JSON values with every number written in one way: 0.0 is 0."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: _one_form(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_one_form(item) for item in value]
    return value


def _with_repeats(
    requests: Requests, kept_for: NDArray[np.int64], others: NDArray[np.int64]
) -> pa.Array:
    """The lines of all requests, where those that are kept name the others."""
    assert requests.bodies is not None
    told: dict[int, list[list[Any]]] = {}
    for index in others.tolist():
        line = requests.bodies[index].as_py()
        name = stated_id(requests.ids[index].as_py(), line)
        entry = [int(requests.source_row[index]), name, source_fields(line)]
        told.setdefault(int(kept_for[index]), []).append(entry)
    lines = {
        index: json_line({**parse_line(requests.bodies[index].as_py()), REPEATS: entries})
        for index, entries in told.items()
    }
    places = np.fromiter(lines, np.int64, len(lines))
    mask = np.zeros(len(requests), bool)
    mask[places] = True
    ordered = [lines[index] for index in sorted(lines)]
    return pc.replace_with_mask(
        requests.bodies, pa.array(mask), pa.array(ordered, pa.large_binary())
    )

"""Mixtures: the requests of a recipe, drawn from public traces, in random order.

The same recipe and data give the same requests.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
from benchmarks.mixture_recipes import Part, Recipe
from benchmarks.mixture_sources import MOST_TOKENS, Drawn, draw
from benchmarks.synthetic.pools import traces_folder
from numpy.typing import NDArray

from blendplan.offsets import offsets_of
from blendplan.requests.columns import Requests, select
from blendplan.requests.read import read_requests

EARLIER_REQUESTS = 2000


@dataclass(frozen=True)
class Mixture:
    """The requests of a recipe, n of them.

    Attributes:
        recipe: as asked for.
        requests: with the output lengths that come true.
        part: index of the part of the recipe that each request is of; int64 [n].
    """

    recipe: Recipe
    requests: Requests
    part: NDArray[np.int64]

    @property
    def label(self) -> str:
        """Number of requests and shares of the sources, for people."""
        counts = np.bincount(self.part, minlength=len(self.recipe.parts))
        shares = ", ".join(
            f"{part.source} {100 * count / len(self.part):.0f} %"
            for part, count in zip(self.recipe.parts, counts, strict=True)
        )
        kv = "" if self.recipe.kv_share == 1.0 else f", {self.recipe.kv_share:.0%} of the KV cache"
        place = f"{self.recipe.model} on {self.recipe.tp} {self.recipe.gpu}{kv}"
        return f"{len(self.part):,} requests: {shares}; {place}"


def mixture(of: Recipe, data: Path | str, *, earlier: bool = False) -> Mixture:
    """Draw the requests of a recipe, in random order.

    Args:
        of: the recipe, thinned or not.
        data: folder with the traces.
        earlier: another, smaller job of the same sources instead, of which no prompt is in this.

    Raises:
        BlendplanError: a file is missing.
    """
    traces = traces_folder(data)
    total = sum(part.count for part in of.parts)
    room = of.kv_tokens // 2
    drawn = []
    for index, part in enumerate(of.parts):
        rng = np.random.default_rng([12, of.number, index])
        count = part.count
        if earlier:
            count = max(1, round(count * min(1.0, EARLIER_REQUESTS / total)))
        found = draw(part.source, traces, count, rng, families=part.families, earlier=earlier)
        drawn.append(_fitting(found, min(room, 2 * MOST_TOKENS)))
    part_of = np.repeat(np.arange(len(drawn)), [len(one) for one in drawn])
    order = np.random.default_rng([13, of.number]).permutation(len(part_of))
    joined = select(_joined(of.parts, drawn), order)
    name = "past" if earlier else "request"
    ids = pa.array([f"{name}-{row}" for row in range(len(order))], pa.large_string())
    requests = replace(joined, ids=ids, source_row=np.arange(len(order)), source=None, sha256="")
    return Mixture(of, requests, part_of[order])


def write_lines(mixed: Mixture, path: Path) -> None:
    """The requests as JSON lines, with their output lengths stated."""
    with path.open("w", encoding="utf-8") as file:
        for line in lines_of(mixed.requests):
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def lines_of(requests: Requests) -> Iterator[dict[str, Any]]:
    """One object for each request: its batch line or its token ids, and its output length."""
    for row, name in enumerate(requests.ids.to_pylist()):
        body = None if requests.bodies is None else requests.bodies[row].as_py()
        cap = int(requests.max_tokens[row])
        if body:
            line = json.loads(body) | {"custom_id": name}
        else:
            line = {"id": name, "prompt_token_ids": requests.prompt(row).tolist()}
            line |= {"max_tokens": cap} if cap >= 0 else {}
        yield line | {"output_tokens": int(requests.output_tokens[row])}


def _fitting(drawn: Drawn, most: int) -> Drawn:
    """Those that the KV cache has room for, twice over."""
    if drawn.prompts is not None:
        lengths = np.array([len(prompt) for prompt in drawn.prompts])
    else:
        lengths = np.array([len(text.encode()) // 4 for text in drawn.texts or ()])
    return drawn.take(np.flatnonzero(lengths + drawn.output_tokens <= most))


def _joined(parts: tuple[Part, ...], drawn: list[Drawn]) -> Requests:
    """All requests one after the other; those with words as they are read from a file."""
    read = _read_texts(parts, drawn)
    token_ids, output_tokens, caps, bodies = [], [], [], []
    at = 0
    for part, one in zip(parts, drawn, strict=True):
        caps.append(np.full(len(one), _cap(part, one), np.int32))
        output_tokens.append(one.output_tokens)
        if one.prompts is not None:
            token_ids += one.prompts
            bodies += [None] * len(one)
            continue
        assert read is not None and read.bodies is not None
        token_ids += [read.prompt(row) for row in range(at, at + len(one))]
        bodies += read.bodies[at : at + len(one)].to_pylist()
        at += len(one)
    count = len(token_ids)
    return Requests(
        ids=pa.array([str(row) for row in range(count)], pa.large_string()),
        source_row=np.arange(count),
        token_ids=np.concatenate(token_ids),
        offsets=offsets_of(np.array([len(prompt) for prompt in token_ids], np.int64)),
        output_tokens=np.concatenate(output_tokens),
        max_tokens=np.concatenate(caps),
        bodies=None if read is None else pa.array(bodies, pa.large_binary()),
        estimated_tokens=read is not None,
    )


def _read_texts(parts: tuple[Part, ...], drawn: list[Drawn]) -> Requests | None:
    """All requests with words, as `read_requests` makes them of batch lines."""
    if all(one.texts is None for one in drawn):
        return None
    with TemporaryDirectory(prefix="blendplan-") as folder:
        path = Path(folder) / "texts.jsonl"
        with path.open("w", encoding="utf-8") as file:
            number = 0
            for part, one in zip(parts, drawn, strict=True):
                for text in one.texts or ():
                    file.write(json.dumps(_batch_line(number, part, one, text)) + "\n")
                    number += 1
        return read_requests(path)


def _batch_line(number: int, part: Part, drawn: Drawn, text: str) -> dict[str, Any]:
    body: dict[str, Any] = {"model": "any"}
    if part.chat:
        body["messages"] = [{"role": "user", "content": text}]
    else:
        body["prompt"] = text
    if part.capped:
        body["max_tokens"] = _cap(part, drawn)
    url = "/v1/chat/completions" if part.chat else "/v1/completions"
    return {"custom_id": str(number), "method": "POST", "url": url, "body": body}


def _cap(part: Part, drawn: Drawn) -> int:
    """A round cap that no output of the source reaches, -1 for none."""
    if not part.capped:
        return -1
    return int(2 ** np.ceil(np.log2(max(8, drawn.output_tokens.max(initial=1)))))

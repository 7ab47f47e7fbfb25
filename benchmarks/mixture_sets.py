"""Mixtures: request sets of two to five sources in random shares and random order.

Numbers 0 to 31 are drawn: the even ones to tune on, the odd ones to report. Numbers 100 to 103 are
four sets of given sources. The same number and data give the same requests.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
from benchmarks.mixture_sources import (
    MOST_TOKENS,
    SOURCES,
    TEXTS,
    WITH_HEADS,
    WORDED,
    Drawn,
    draw,
)
from benchmarks.synthetic.pools import traces_folder
from numpy.typing import NDArray

from blendplan.cost.machine import Machine, machine
from blendplan.errors import BlendplanError
from blendplan.offsets import offsets_of
from blendplan.requests.columns import Requests, select
from blendplan.requests.read import read_requests

DRAWN = 32
GIVEN = (100, 101, 102, 103)
GPUS = ("a100-80g", "h100-80g", "l40s")
# Tensor-parallel degree on each of the GPUs.
MODELS = {"llama-3.1-8b": (1, 1, 1), "qwen-3-14b": (1, 1, 2), "llama-3.1-70b": (4, 4, 8)}
LARGE = (4, 11)  # pairs of mixtures of 25,000 requests and more
EARLIER_REQUESTS = 2000
LEAST_REQUESTS = 1500
# Long prompts: more of them would be hours of simulated time.
_MOST_OF = {"mooncake_conversation": 1500, "mooncake_synthetic": 1000, "documents": 1000}
_MOST_OF |= {"reason": 1200, "long_reasoning": 6000, "bwb": 6000}
_OFTEN = 3  # times as often as others where heads are wanted, or in a large mixture


@dataclass(frozen=True)
class Part:
    """One source of a mixture.

    Attributes:
        source: one of `SOURCES`.
        count: requests, fewer where the source has fewer.
        families: of a source of texts.
        capped: whether the requests state a `max_tokens`.
        chat: whether a prompt with words is a chat message.
    """

    source: str
    count: int
    families: tuple[str, ...] = ()
    capped: bool = False
    chat: bool = False


@dataclass(frozen=True)
class Recipe:
    """What a mixture is made of, and where it runs.

    Attributes:
        number: of the mixture, also the seed.
        parts: its sources.
        gpu, model, tp: where it runs.
        kv_share: capacity of the KV cache, as a share of what the GPU has room for.
    """

    number: int
    parts: tuple[Part, ...]
    gpu: str = "a100-80g"
    model: str = "llama-3.1-8b"
    tp: int = 1
    kv_share: float = 1.0

    @property
    def half(self) -> str:
        """``given``, ``tune`` or ``report``."""
        if self.number in GIVEN:
            return "given"
        return "report" if self.number % 2 else "tune"

    @property
    def engine(self) -> dict[str, Any]:
        """Keyword arguments of `compare`, the overlap exponent left out."""
        place = {"gpu": self.gpu, "model": self.model, "tp": self.tp}
        if self.kv_share == 1.0:
            return place
        tokens = int(self.kv_share * _machine(self).limits.kv_tokens)
        return place | {"kv_tokens": tokens // 16 * 16}

    def thinned(self, thin: int) -> "Recipe":
        """With so many times fewer requests, but `LEAST_REQUESTS` in all where it has them."""
        total = sum(part.count for part in self.parts)
        share = min(1.0, max(1.0 / thin, LEAST_REQUESTS / total))
        parts = [replace(p, count=max(1, round(share * p.count))) for p in self.parts]
        return replace(self, parts=tuple(parts))


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


def recipes(half: str = "all") -> list[Recipe]:
    """All recipes of a half, ``tune`` or ``report``, of those ``given``, or all of the drawn."""
    numbers = GIVEN if half == "given" else range(DRAWN)
    found = [recipe(number) for number in numbers]
    return [one for one in found if half in ("all", one.half)]


def recipe(number: int) -> Recipe:
    """The recipe of that number.

    Raises:
        BlendplanError: there is none.
    """
    if number in _GIVEN_PARTS:
        return Recipe(number, _GIVEN_PARTS[number])
    if not 0 <= number < DRAWN:
        raise BlendplanError(
            f"no mixture {number}; give 0 to {DRAWN - 1}, or {GIVEN[0]} to {GIVEN[-1]}"
        )
    pair = number // 2
    rng = np.random.default_rng([11, number])
    heads, large = pair % 2 == 0, pair in LARGE
    gpu = pair % len(GPUS)
    model = list(MODELS)[pair // len(GPUS) % len(MODELS)]
    small_cache = pair % 4 in (1, 2)
    low, high = (25_000, 50_000) if large else (2_000, 15_000)
    total = round(float(np.exp(rng.uniform(np.log(low), np.log(high)))))
    return Recipe(
        number,
        _parts(total, heads, large, rng),
        GPUS[gpu],
        model,
        MODELS[model][gpu],
        round(float(rng.uniform(0.2, 0.4)), 2) if small_cache else 1.0,
    )


def _parts(total: int, heads: bool, large: bool, rng: np.random.Generator) -> tuple[Part, ...]:
    count = int(rng.integers(2, 6))
    plain = [source for source in SOURCES if source not in WITH_HEADS]
    chosen = [str(rng.choice(WITH_HEADS if not large else ["mmlu"]))] if heads else []
    if large:
        chosen.append("sharegpt")
    pool = [*SOURCES, *plain] if heads else plain
    while len(chosen) < count:
        source = str(rng.choice(pool))
        if source not in chosen:
            chosen.append(source)
    shares = rng.exponential(1.0, len(chosen)) + 0.15
    shares /= shares.sum()
    parts = []
    for source, share in zip(chosen, shares.tolist(), strict=True):
        families = TEXTS.get(source, ())
        if families:
            kept = rng.random(len(families)) < 0.65
            kept[rng.integers(len(families))] = True
            families = tuple(np.array(families)[kept].tolist())
        asked = min(_MOST_OF.get(source, total), max(1, round(share * total)))
        capped, chat = bool(rng.random() < 0.5), bool(rng.random() < 0.5)
        parts.append(Part(source, asked, families, capped, chat and source in WORDED))
    return tuple(parts)


_FAMILIES_39 = (
    *TEXTS["classify"][:8],
    *TEXTS["chat"],
    *TEXTS["maths"],
    *TEXTS["reason"],
    *TEXTS["code"],
    *TEXTS["summarise"][:5],
)
_GIVEN_PARTS = {
    100: (
        Part("mmlu", 14_000),
        Part("sharegpt", 14_500),
        Part("reports", 10_000),
        Part("long_reasoning", 6_000),
        Part("mooncake_conversation", 1_500),
    ),
    101: (Part("long_reasoning", 10_500), Part("reports", 5_500)),
    102: (Part("mooncake_conversation", 1_100),),
    103: (Part("texts", 20_000, _FAMILIES_39, chat=True),),
}


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
    room = _kv_tokens(of) // 2
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


@lru_cache(maxsize=64)
def _machine(of: Recipe) -> Machine:
    return machine(of.gpu, of.model, tp=of.tp)


def _kv_tokens(of: Recipe) -> int:
    return int(of.kv_share * _machine(of).limits.kv_tokens)

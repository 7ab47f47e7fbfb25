"""Recipes of mixtures: two to five sources in random shares, and where they run.

Numbers 0 to 31 are drawn: the even ones to tune on, the odd ones to report. Numbers 100 to 103 are
four sets of given sources.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from benchmarks.mixture_sources import SOURCES, TEXTS, WITH_HEADS, WORDED

from blendplan.cost.machine import machine
from blendplan.errors import BlendplanError

DRAWN = 32
GIVEN = (100, 101, 102, 103)
GPUS = ("a100-80g", "h100-80g", "l40s")
# Tensor-parallel degree on each of the GPUs.
MODELS = {"llama-3.1-8b": (1, 1, 1), "qwen-3-14b": (1, 1, 2), "llama-3.1-70b": (4, 4, 8)}
LARGE = (4, 11)  # pairs of mixtures of 25,000 requests and more
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
        return place if self.kv_share == 1.0 else place | {"kv_tokens": self.kv_tokens}

    @property
    def kv_tokens(self) -> int:
        """Capacity of the KV cache, in whole blocks of 16 tokens."""
        return int(self.kv_share * _room(self.gpu, self.model, self.tp)) // 16 * 16

    def thinned(self, thin: int) -> "Recipe":
        """With so many times fewer requests, but `LEAST_REQUESTS` in all where it has them."""
        total = sum(part.count for part in self.parts)
        share = min(1.0, max(1.0 / thin, LEAST_REQUESTS / total))
        parts = [replace(p, count=max(1, round(share * p.count))) for p in self.parts]
        return replace(self, parts=tuple(parts))


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


@lru_cache(maxsize=64)
def _room(gpu: str, model: str, tp: int) -> int:
    """Tokens that the KV cache has room for."""
    return machine(gpu, model, tp=tp).limits.kv_tokens

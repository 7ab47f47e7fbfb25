"""How far two kinds of work overlap: two engines side by side, and prefill beside decoding.

Each engine of two has its share of the KV cache, as a plan's memory partition gives it. What takes
g and a alone and T together has the overlap exponent q at which (g^q + a^q)^(1/q) = T; one after
the other it is 1.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from blendplan.engines.kept import KeptEngine
from blendplan.engines.registry import ENGINES
from blendplan.planfile.plan import Plan
from blendplan.proving.bench import Bench
from blendplan.requests.read import read_requests

KINDS = ("exams", "chats")
REQUESTS = 200
_MOST_Q = 50.0
_HALF_OF_MEMORY = 0.45  # room is left for what is nobody's


def measure(bench: Bench) -> dict[str, Any]:
    """Run compute-heavy and memory-heavy requests alone, side by side, and as one plan.

    Returns:
        ``side_by_side``: seconds of each alone, of both together, of one engine that blends them,
        and q. ``pdmux``: seconds of a plan with prefill and decoding one after the other and
        sharing the GPU in space; None where the engine cannot.
    """
    found: dict[str, Any] = {"side_by_side": side_by_side(bench), "pdmux": None}
    if ENGINES.get(bench.settings.engine).spatial_sharing and bench.settings.gpu is not None:
        found["pdmux"] = _pdmux(bench)
    return found


def side_by_side(bench: Bench) -> dict[str, Any]:
    """Two engines on one device."""
    jobs = [bench.job(kind, REQUESTS) for kind in KINDS]
    assert bench.kv_tokens is not None
    whole = bench.kv_tokens // bench.settings.block_size * bench.settings.block_size
    half = whole // 2 // bench.settings.block_size * bench.settings.block_size
    plans = [bench.plan(requests, "dfs", kv_tokens=half) for requests in jobs]
    bench.kept.close()  # it holds the GPU
    kind, arguments = ENGINES.get(bench.settings.engine), bench.kv_cache(half)
    if kind.memory_share and not bench.settings.on_cpu:
        arguments[kind.memory_share] = _HALF_OF_MEMORY
    with KeptEngine(kind) as first, KeptEngine(kind) as second:
        engines = (first, second)

        def run(place: int, word: str) -> dict[str, Any]:
            name = f"{KINDS[place]}-{word}"
            return bench.run(plans[place], name, kept=engines[place], engine_args=arguments)

        for place in range(2):  # starts the engine: the run is not counted
            run(place, "start")
        alone = [run(place, "alone") for place in range(2)]
        with ThreadPoolExecutor(2) as threads:
            both = list(threads.map(lambda place: run(place, "beside"), range(2)))
    together_s = max(run["measured_s"] for run in both)
    blended = _blended(bench)
    alone_s = [run["measured_s"] for run in alone]
    return {
        "alone_s": dict(zip(KINDS, alone_s, strict=True)),
        "together_s": together_s,
        "speedup": sum(alone_s) / together_s,
        "one_engine_s": blended["measured_s"],
        "kv_tokens_each": half,
        "q": exponent(alone_s[0], alone_s[1], together_s),
    }


def exponent(one_s: float, other_s: float, together_s: float) -> float | None:
    """The q at which (one^q + other^q)^(1/q) is ``together_s``.

    Returns:
        None where running together took longer than one after the other by more than q = 0.7 says,
        and 50 where it took no longer than the longer one.
    """
    longer, shorter = max(one_s, other_s), min(one_s, other_s)
    if together_s <= longer:
        return _MOST_Q

    def took(q: float) -> float:
        return longer * (1.0 + (shorter / longer) ** q) ** (1.0 / q)

    low, high = 0.7, _MOST_Q
    if together_s > took(low):
        return None
    for _ in range(60):
        q = math.sqrt(low * high)
        low, high = (q, high) if took(q) > together_s else (low, q)
    return low


def _blended(bench: Bench) -> dict[str, Any]:
    """Both jobs as one plan on one engine."""
    text = "".join(
        bench.folder.file(f"{kind}-{REQUESTS}-0.jsonl").read_text(encoding="utf-8")
        for kind in KINDS
    )
    path = bench.folder.file("exams-and-chats.jsonl")
    path.write_text(text, encoding="utf-8")
    return bench.run(bench.plan(read_requests(path), "blend"), "blended")


def _pdmux(bench: Bench) -> dict[str, Any]:
    """A plan with and without spatial sharing."""
    made: Plan = bench.plan(bench.job("memory", REQUESTS), "blend")
    runs = [bench.run(made, f"pdmux-{word}", pdmux=word == "on") for word in ("off", "on")]
    seconds = [run["measured_s"] for run in runs]
    return {"off_s": seconds[0], "on_s": seconds[1], "speedup": seconds[0] / seconds[1]}

"""`verdict`: what a comparison comes to in sentences, above all when the order hardly matters."""

from collections.abc import Mapping
from dataclasses import dataclass

# Makespans that differ by less are the same: no cost model is that exact.
SAME = 0.02
# A resource, or a sharing ratio, below this share of the whole is not worth an order.
_LITTLE = 0.05
# Orders that engines follow by themselves: what a plan has to beat.
USUAL = ("dfs", "fcfs")


@dataclass(frozen=True)
class Circumstances:
    """What decides whether the order of requests can matter.

    Attributes:
        requests, max_num_seqs: how many there are, each answer to one counted by itself, and how
            many may run at once.
        needed_kv_tokens, kv_tokens: KV tokens of all requests at their full lengths, shared
            prefixes counted once, and the capacity.
        compute_s, memory_s: least compute and memory time of any schedule.
        overlap: overlap exponent of the engine.
        sharing: the best possible prefix sharing ratio.
        bound_s: lower bound on the makespan.
    """

    requests: int
    max_num_seqs: int
    needed_kv_tokens: float
    kv_tokens: int
    compute_s: float
    memory_s: float
    overlap: float
    sharing: float
    bound_s: float


@dataclass(frozen=True)
class Verdict:
    """What the order of requests is worth.

    Attributes:
        order_matters: whether the policies differ by more than 2 %.
        gain: throughput of the best policy over the worst, less 1.
        sentences: for people, the most important one first.
    """

    order_matters: bool
    gain: float
    sentences: tuple[str, ...]


def verdict(makespan_s: Mapping[str, float], around: Circumstances) -> Verdict:
    """Which policy is best by how much, or that the order makes no difference, and why.

    Args:
        makespan_s: predicted makespan of each policy, at least one.
        around: from `circumstances`.
    """
    best = min(makespan_s, key=lambda name: makespan_s[name])
    worst = max(makespan_s, key=lambda name: makespan_s[name])
    gain = makespan_s[worst] / makespan_s[best] - 1.0 if makespan_s[best] > 0 else 0.0
    reached = around.bound_s / makespan_s[best] if makespan_s[best] > 0 else 1.0
    left = f"{best} reaches {_percent(reached)} of what any schedule could"
    if len(makespan_s) == 1:
        return Verdict(False, 0.0, (f"{left}; compare more policies.",))
    if gain >= SAME:
        others = [name for name in USUAL if name in makespan_s and name != best] or [worst]
        gains = [
            f"{_percent(makespan_s[name] / makespan_s[best] - 1.0)} more throughput than {name}"
            for name in others
        ]
        return Verdict(True, gain, (f"{best} is fastest: {', '.join(gains)}.", f"{left}."))
    found = reasons(around)
    spread = f"are within {_percent(gain)}" if gain >= 5e-4 else "take the same time"
    said = f"The order makes no difference here: all policies {spread}"
    if found:
        said += f", because {found[0]}"
    elif reached > 1.0 - SAME:
        said += ", because any order already keeps the GPU as busy as it can be"
    else:
        said += f", though {left}: what is lost, none of these orders avoids"
    return Verdict(False, gain, (f"{said}.", *(f"Also, {reason}." for reason in found[1:])))


def reasons(around: Circumstances) -> list[str]:
    """Why an order can gain little, the strongest reason first; empty when there is none."""
    found = []
    fits = around.needed_kv_tokens <= around.kv_tokens
    if fits and around.requests <= around.max_num_seqs:
        found.append(
            f"everything fits at once: all {around.requests:,} requests together need "
            f"{around.needed_kv_tokens:,.0f} KV tokens of {around.kv_tokens:,}, "
            "so they all start together whatever the order"
        )
    total = around.compute_s + around.memory_s
    if total > 0:
        compute_share = around.compute_s / total
        if 1.0 - compute_share < _LITTLE:
            found.append(
                f"compute dominates: {_percent(compute_share)} of the work is compute, "
                "so there is hardly any memory traffic to run beside it"
            )
        elif compute_share < _LITTLE:
            found.append(
                f"memory dominates: {_percent(1.0 - compute_share)} of the work is reading the "
                "KV cache, so there is hardly any compute to run beside it"
            )
        elif around.overlap == 1.0:
            found.append(
                "this engine (overlap exponent 1) runs compute and memory work one after the "
                "other, so mixing them saves no more than half-empty steps"
            )
    if around.sharing < _LITTLE:
        found.append(
            f"there is no prefix sharing to keep: at best {_percent(around.sharing)} of the "
            "prompt tokens come from the cache"
        )
    return found


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"

"""What the plans of all parts come to together: the metadata of the whole."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from blendplan.cost.machine import Machine
from blendplan.cost.reach import Reach, pairs_of
from blendplan.lengths.prior import note_of_guesses
from blendplan.planning.bound import LeastWork, bound_of_replicas
from blendplan.planning.describe import engine_metadata
from blendplan.planning.large.parts import PartPlanned
from blendplan.planning.large.pricing import Priced, common_tokens
from blendplan.planning.outlook import together
from blendplan.policy.holding import Holding, holding_of
from blendplan.simulator.cuda_graphs import StepSizes

_SUMMED = ("prompt_tokens", "output_tokens", "prefill_tokens", "compute_s", "memory_s")


def describe_whole(
    target: Machine,
    priced: Sequence[Priced],
    parts: Sequence[PartPlanned],
    replicas: int,
    unknown: int,
) -> dict[str, Any]:
    """As `describe` does for the plan of several replicas in one file.

    Args:
        target: the machine of each replica.
        priced: the ranges, in order.
        parts: the plans of all parts.
        replicas: how many engines there are, those without requests included.
        unknown: requests that state no output length.
    """
    said = [part.metadata for part in parts]
    predicted = [one["predicted"] for one in said]
    slowest = max(range(len(parts)), key=lambda number: predicted[number]["makespan_s"])
    makespan_s = predicted[slowest]["makespan_s"]
    preemptions = sum(one["preemptions"] for one in predicted)
    sums = {name: sum(one[name] for one in predicted) for name in _SUMMED}
    requests = sum(one["requests"] for one in said)
    sequences = sum(part.sequences for part in parts)
    common = [common_tokens(one.last, two.first) for one, two in pairwise(priced)]
    unique = sum(one.unique_tokens for one in priced) - sum(common)
    holding = holding_of(target.layout)
    bound = bound_of_replicas(
        target.table,
        _least_work(priced, parts, common, target.table.reach, holding),
        max(priced, key=lambda one: one.work.longest).longest_prompt,
        target.limits.kv_tokens,
        replicas,
        holding,
    )
    cached = sum(
        one["prefix_sharing"]["planned"] * one["predicted"]["prompt_tokens"] for one in said
    )
    whole = {
        **{name: value for name, value in said[slowest].items() if name != "sequences"},
        "requests": requests,
        "replicas": replicas,
        "policy_parameters": {},
        "replan": None,
        "engine": engine_metadata(target, _step_sizes(parts)),
        "density": _density(priced, sum(common)),
        "prefix_sharing": {
            "planned": cached / sums["prompt_tokens"],
            "optimal": 1.0 - unique / sums["prompt_tokens"],
        },
        "lengths": {
            **said[slowest]["lengths"],
            "note": note_of_guesses(unknown, requests) if unknown else "",
        },
        "predicted": {
            **sums,
            "makespan_s": makespan_s,
            "throughput_tokens_per_s": (sums["prompt_tokens"] + sums["output_tokens"]) / makespan_s,
            "steps": predicted[slowest]["steps"],
            "preemptions": preemptions,
            "turnaround_s": _turnaround(parts),
            "makespan_quantiles_s": together(
                [part.outlook for part in parts if part.outlook is not None]
            ).as_metadata(),
        },
        "bound_s": bound.makespan_s,
        "bound_ratio": bound.makespan_s / makespan_s,
        "parts": [{name: value for name, value in one.items() if name != "series"} for one in said],
    }
    if sequences > requests:
        whole["sequences"] = sequences
    if "rejected" in said[0]:
        whole["rejected"] = said[0]["rejected"]
    return whole


def _least_work(
    priced: Sequence[Priced],
    parts: Sequence[PartPlanned],
    common: Sequence[int],
    reach: Reach,
    holding: Holding,
) -> LeastWork:
    """What no schedule of all requests avoids, whichever replica has which.

    Sums over ranges, less what neighbouring ranges share (``common``, tokens of each pair); what is
    read by decodes, with preemptions, is summed over the parts.
    """
    works = [one.work for one in priced]
    tokens = sum(work.prefill_tokens for work in works)
    pairs = sum(work.prefill_pairs for work in works)
    resident = sum(work.resident for work in works)
    for (one, two), shared in zip(pairwise(priced), common, strict=True):
        # The last token of a prompt is computed anew even where all of it is shared.
        again = int(shared == len(one.last) == len(two.first))
        tokens -= shared - again
        pairs -= pairs_of(reach, 0, shared) - again * pairs_of(reach, shared - 1, 1)
        # No more than this of what both ends hold for themselves is shared after all.
        most_slots = shared * holding.most_per_token
        resident -= most_slots * (one.end_outputs[1] + two.end_outputs[0])
    return LeastWork(
        prefill_tokens=tokens,
        prefill_pairs=pairs,
        outputs=sum(work.outputs for work in works),
        decodes=sum(work.decodes for work in works),
        longest=max(work.longest for work in works),
        resident=resident,
        preemptions=sum(part.work.preemptions for part in parts),
        reads=sum(part.work.reads for part in parts),
        reading_decodes=sum(part.work.reading_decodes for part in parts),
    )


def _density(priced: Sequence[Priced], common: int) -> float:
    """Compute over memory time of all requests, shared prefixes counted once.

    Tokens that neighbouring ranges share, and so count twice, are taken out at the mean price.
    """
    left_s = sum(one.compute_left_s for one in priced)
    tokens = sum(one.unique_tokens + one.work.outputs for one in priced)
    return left_s * (1.0 - common / tokens) / sum(one.whole_memory_s for one in priced)


def _step_sizes(parts: Sequence[PartPlanned]) -> StepSizes:
    mixed: Counter[int] = Counter()
    decode: Counter[int] = Counter()
    for part in parts:
        sizes = StepSizes.from_metadata(part.metadata["engine"])
        mixed.update(sizes.mixed)
        decode.update(sizes.decode)
    return StepSizes(dict(sorted(mixed.items())), dict(sorted(decode.items())))


def _turnaround(parts: Sequence[PartPlanned]) -> dict[str, float]:
    """Quantiles over all parts, from those of each."""
    ends_s = np.concatenate([part.ends_s for part in parts])
    weights = np.repeat(
        [part.sequences / len(part.ends_s) for part in parts], [len(part.ends_s) for part in parts]
    )
    order = np.argsort(ends_s, kind="stable")
    shares = np.cumsum(weights[order]) / weights.sum()
    return {
        name: float(ends_s[order[np.searchsorted(shares, share)]])
        for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
    }

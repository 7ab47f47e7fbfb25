"""`solve_counts` and `Mixture`: how many requests of each source give a density and a sharing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from benchmarks.synthetic.rows import Rows
from numpy.typing import NDArray

from blendplan.cost.protocol import CostModel

# Each source has a system prompt of its own, so that sources share nothing with each other. One KV
# block of the usual size, so that engines that cache whole blocks can share it.
SYSTEM_TOKENS = 16
# Token ids are drawn from the text part of Llama 3's vocabulary.
VOCABULARY = 128_000


@dataclass(frozen=True)
class Family:
    """The requests of one source: `SYSTEM_TOKENS` in common, then what `rows` says."""

    name: str
    rows: Rows

    @property
    def prompt_tokens(self) -> NDArray[np.int32]:
        """Whole prompts; int32 [k]."""
        return SYSTEM_TOKENS + self.rows.prefix_tokens + self.rows.own_tokens

    def distinct_tokens(self) -> float:
        """Prompt tokens with every shared prefix counted once, as expected of random token ids.

        Where more prompts follow a prefix than there are token ids, many go on with the same one.
        """
        groups, sizes = np.unique(self.rows.group, return_counts=True)
        common = SYSTEM_TOKENS + self.rows.group_tokens[groups[groups >= 0]].sum()
        first = VOCABULARY * -np.expm1(sizes * np.log1p(-1.0 / VOCABULARY))
        return float(common + self.rows.own_tokens.sum(dtype=np.int64) - (sizes - first).sum())


@dataclass(frozen=True)
class Mixture:
    """Families that together have a compute density and a prefix sharing.

    Attributes:
        families: the sources, compute-heavy one first.
        density: compute density of the whole, (1 - s) T_comp / T_mem, s the share of compute that
            prefix sharing saves.
        sharing: optimal prefix sharing ratio, by prompt tokens.
        compute_s, memory_s: T_comp and T_mem in seconds, prompts in full.
    """

    families: tuple[Family, ...]
    density: float
    sharing: float
    compute_s: float
    memory_s: float

    def __len__(self) -> int:
        return sum(len(family.rows) for family in self.families)

    @property
    def counts(self) -> dict[str, int]:
        """Number of requests by source."""
        return {family.name: len(family.rows) for family in self.families}


@dataclass(frozen=True)
class _Means:
    """What a family is per request, and what it has once."""

    prompt_tokens: float
    own_tokens: float
    own_compute_s: float
    memory_s: float
    once_tokens: float
    once_compute_s: float


def measure(families: Sequence[Family], costs: CostModel) -> Mixture:
    """Density and sharing of some families together, as expected of random token ids.

    Compute is taken to be linear in tokens, as it is in the paper's formula.
    """
    compute = memory = needed = prompts = distinct = 0.0
    for family in families:
        tokens = family.prompt_tokens
        compute_s, memory_s = costs.demand(tokens, family.rows.output_tokens)
        total = float(tokens.sum(dtype=np.int64))
        unique = family.distinct_tokens()
        compute += compute_s.sum()
        memory += memory_s.sum()
        needed += compute_s.sum() - (total - unique) * _token_s(costs)
        prompts += total
        distinct += unique
    density = needed / memory if memory else np.inf
    sharing = 1.0 - distinct / prompts if prompts else 0.0
    return Mixture(tuple(families), float(density), sharing, float(compute), float(memory))


def solve_counts(
    samples: Sequence[Family],
    costs: CostModel,
    requests: int,
    density: float | None,
    sharing: float | None,
) -> NDArray[np.float64]:
    """Requests of each family that make `requests` with the target density and sharing.

    All three conditions are linear in the counts: tokens, compute and memory add up, and what a
    family shares it has once.

    Args:
        samples: families with some of their requests each, whose means stand for all.
        costs: prices of requests.
        requests: the sum of the counts.
        density, sharing: as of `Mixture`; as many of them as there are families less one.

    Returns:
        fractional counts, one for each family; below 0 where no mixture has both.
    """
    means = [_means(sample, costs) for sample in samples]
    rows, right = [[1.0] * len(samples)], [float(requests)]
    if density is not None:
        rows.append([one.own_compute_s - density * one.memory_s for one in means])
        right.append(-sum(one.once_compute_s for one in means))
    if sharing is not None:
        rows.append([one.own_tokens - (1.0 - sharing) * one.prompt_tokens for one in means])
        right.append(-sum(one.once_tokens for one in means))
    try:
        return np.linalg.solve(np.array(rows), np.array(right))
    except np.linalg.LinAlgError:
        return np.full(len(samples), -1.0)


def scaled_outputs(
    family: Family, others: Sequence[Family], costs: CostModel, density: float
) -> Family:
    """The family with its output lengths scaled so that all together have the density.

    A few long requests can only be whole, so their number alone misses it. By 10 % at most.
    """
    low, high = 0.9, 1.1
    output = family.rows.output_tokens
    for _ in range(24):
        factor = (low + high) / 2.0
        outputs = np.maximum(1, np.rint(factor * output)).astype(np.int32)
        scaled = Family(family.name, replace(family.rows, output_tokens=outputs))
        # Longer outputs are more memory-heavy.
        if measure([*others, scaled], costs).density > density:
            low = factor
        else:
            high = factor
    return scaled


def _means(sample: Family, costs: CostModel) -> _Means:
    rows = sample.rows
    prompts = sample.prompt_tokens
    own_compute_s, _ = costs.demand(rows.own_tokens, rows.output_tokens)
    _, memory_s = costs.demand(prompts, rows.output_tokens)
    own_tokens = rows.own_tokens.sum(dtype=np.int64)
    once = sample.distinct_tokens() - float(own_tokens)
    return _Means(
        prompt_tokens=float(prompts.mean()),
        own_tokens=float(rows.own_tokens.mean()),
        own_compute_s=float(own_compute_s.mean()),
        memory_s=float(memory_s.mean()),
        once_tokens=once,
        once_compute_s=once * _token_s(costs),
    )


def _token_s(costs: CostModel) -> float:
    """Compute seconds of one token."""
    compute_s, _ = costs.demand(np.ones(1, np.int32), np.zeros(1, np.int32))
    return float(compute_s[0])

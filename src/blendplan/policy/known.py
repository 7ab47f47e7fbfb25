"""`PolicyInput`: what is known of the requests, and of prices, when a policy is made."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blendplan.cost.measured_steps import LEAST_PRICE_S
from blendplan.cost.reach import ALL_TOKENS, Reach, growing_share, mean_read
from blendplan.cost.step import StepTable, lower_hull
from blendplan.lengths.predicted import is_unsure
from blendplan.policy.holding import GROWS_BY_ONE, Holding

# Marginal price of a token, as a share of that in the best step, that counts as nearly as much.
# Set under calibrated prices of the A100, like EFFICIENT.
FULL_PRICE = 0.8
# Price of an efficient size, as a multiple of the hull of all prices. Set under calibrated prices
# of the A100, on trace1 and trace4 (docs/cost-model.md), where steps of such sizes shorten the
# makespan by 3 to 4 %.
EFFICIENT = 1.03


class StepPrices(NamedTuple):
    """What a policy needs to know of the price of a step.

    Attributes:
        token_s: seconds of compute per token in a well-filled step.
        read_s: seconds per KV token read.
        least_tokens: tokens that a step needs for its compute time to be worth its weights.
        efficient_tokens: ranges of sizes, first and last, at which a step costs what the prices of
            all sizes suggest; kernels work in tiles, and just past a full one they waste most.
            None where all sizes do.
        state_reads: KV tokens that take as long to read as the states of a request that do not
            grow, which each of its steps reads and writes.
        prefill_share: what a step costs for having prompt tokens at all, beside them, as a multiple
            of the shortest step.
    """

    token_s: float
    read_s: float
    least_tokens: int
    efficient_tokens: Sequence[Sequence[int]] = ()
    state_reads: float = 0.0
    prefill_share: float = 0.0


@dataclass(frozen=True)
class PolicyInput:
    """What the planner knows of n requests when it makes a policy.

    Attributes:
        depth_first: requests in depth-first order of the prefix tree; int64 [n].
        family: number of each request's family, ascending along ``depth_first``; a family's common
            prefix pays only while its requests run close together; int64 [n].
        by_density: requests in leaf order of the sorted and split tree; int64 [n].
        prompt_tokens: prompt length; float64 [n].
        new_prompt_tokens: prompt tokens that each request must compute when every shared prefix
            is computed once and its cost is divided among the requests below it; float64 [n].
        outcomes: equally likely output lengths of each request, rising; all are equal where the
            length is known; float64 [n, OUTCOMES].
        density: compute seconds over memory seconds with ``new_prompt_tokens``; float64 [n].
        root_density: the same for the whole workload.
        prices: price of a step.
        request: number of the request that each of them is an answer to, ascending; int64 [n]. None
            where each is a request by itself. An engine is given all answers of a request at once,
            so every order of a policy must keep them together; see `keep_together`.
        reach: how far back attention looks.
        holding: what a request holds of the KV cache.
    """

    depth_first: NDArray[np.int64]
    family: NDArray[np.int64]
    by_density: NDArray[np.int64]
    prompt_tokens: NDArray[np.float64]
    new_prompt_tokens: NDArray[np.float64]
    outcomes: NDArray[np.float64]
    density: NDArray[np.float64]
    root_density: float
    prices: StepPrices
    request: NDArray[np.int64] | None = None
    reach: Reach = ALL_TOKENS
    holding: Holding = GROWS_BY_ONE

    def __len__(self) -> int:
        return len(self.depth_first)

    def take(self, requests: NDArray[np.int64]) -> "PolicyInput":
        """The same of some requests, which are numbered anew in the given order; int64 [m]."""
        place = np.full(len(self), -1, dtype=np.int64)
        place[requests] = np.arange(len(requests))
        _, family = np.unique(self.family[requests], return_inverse=True)
        orders = {name: place[getattr(self, name)] for name in ("depth_first", "by_density")}
        columns = ("prompt_tokens", "new_prompt_tokens", "outcomes", "density")
        return replace(
            self,
            **{name: order[order >= 0] for name, order in orders.items()},
            **{name: getattr(self, name)[requests] for name in columns},
            family=family.astype(np.int64, copy=False),
            request=None if self.request is None else self.request[requests],
        )

    def with_outcomes(self, outcomes: NDArray[np.float64]) -> "PolicyInput":
        """The same with other output lengths, and the densities that follow from them.

        Args:
            outcomes: float64 [n, OUTCOMES].
        """
        changed = replace(self, outcomes=outcomes)
        compute_s = self.prices.token_s * (self.new_prompt_tokens + changed.output_tokens)
        # Steps of short contexts may show no price of reading them; densities need one.
        read_s = max(self.prices.read_s, LEAST_PRICE_S)
        memory_s = read_s * np.maximum(changed.reads, 1e-9)
        return replace(
            changed,
            density=compute_s / memory_s,
            root_density=float(compute_s.sum() / memory_s.sum()),
        )

    @cached_property
    def output_tokens(self) -> NDArray[np.float64]:
        """Expected output length; float64 [n]."""
        return self.outcomes.mean(axis=1)

    @cached_property
    def unsure(self) -> NDArray[np.bool_]:
        """Whether the output length is not known; bool [n]."""
        return is_unsure(self.outcomes)

    @cached_property
    def output_squares(self) -> NDArray[np.float64]:
        """Expected square of the output length; float64 [n]."""
        return (self.outcomes**2).mean(axis=1)

    @cached_property
    def held_tokens(self) -> NDArray[np.float64]:
        """KV tokens that each request holds beside those that grow with its output; float64 [n].

        A shared prefix counts once where layers keep it, divided among the requests below it. What
        a window keeps is counted as it is at the end.
        """
        level = self.holding.level(self.prompt_tokens + self.output_tokens)
        return self.holding.growth * self.new_prompt_tokens + level

    @cached_property
    def level_reads(self) -> NDArray[np.float64]:
        """KV tokens that each step of a request reads beside all those of its context; float64 [n].

        That of windows is a mean over all of its steps.
        """
        level = mean_read(self.reach, self.prompt_tokens, self.output_tokens)
        return level + self.prices.state_reads

    @property
    def reads(self) -> NDArray[np.float64]:
        """KV tokens that each request is expected to read while it decodes; float64 [n]."""
        contexts = self.prompt_tokens * self.output_tokens + self.output_squares / 2
        return growing_share(self.reach) * contexts + self.level_reads * self.output_tokens


def step_prices(table: StepTable) -> StepPrices:
    """Sum up a step table for a policy.

    A step counts as well filled when a token costs little more than in the best step: 15 % where
    the rest of the step overlaps with it, 1 % where nothing does; but no further than to where
    another token costs nearly as much as one in the best step, from where on filling steps more
    only moves tokens from one step to another. Its size is efficient when its price is within 3 %
    of the convex hull of all prices, which mixtures of other sizes could reach.
    """
    tokens = np.arange(1, len(table.linear_s))
    per_token = table.linear_s[1:] / tokens
    best = float(per_token.min())
    tolerance = 1.01 if table.overlap == 1.0 else 1.15
    least = int(tokens[np.argmax(per_token <= tolerance * best)])
    corners = lower_hull(table.linear_s)
    hull = table.linear_s[corners]
    full_price = np.diff(hull) / np.diff(corners) >= FULL_PRICE * best
    if full_price.any():
        least = min(least, int(corners[np.argmax(full_price)]))
    at_hull = table.linear_s[1:] <= EFFICIENT * np.interp(tokens, corners, hull)
    read_s = float(table.decode_attention[0])
    state_reads = table.state_s / read_s if read_s > 0.0 else 0.0
    shortest_s = float(table.linear_s[1] + table.step_s)
    share = float(table.prefill_attention[2]) / shortest_s if shortest_s > 0.0 else 0.0
    return StepPrices(best, read_s, least, _ranges(at_hull), state_reads, share)


def _ranges(chosen: NDArray[np.bool_]) -> list[list[int]]:
    """First and last, counted from 1, of each run of True; none where all are."""
    if chosen.all():
        return []
    edges = np.flatnonzero(np.diff(chosen.astype(np.int8), prepend=0, append=0))
    return [[int(first) + 1, int(end)] for first, end in edges.reshape(-1, 2)]

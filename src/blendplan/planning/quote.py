"""`quote`: which machine for these requests, how long it takes and what it costs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from blendplan.checks.arguments import number, text, whole
from blendplan.cost.launches import with_launches
from blendplan.cost.machine import check_engine_arguments
from blendplan.errors import BlendplanError
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.hardware.gpu import GpuSpec
from blendplan.hardware.lookup import gpu_spec, model_spec
from blendplan.hardware.model import ModelSpec
from blendplan.planning.options import PlanOptions, check_requests
from blendplan.planning.prepare import Progress
from blendplan.planning.quoting.combinations import Combination, Unfit, combinations
from blendplan.planning.quoting.front import front
from blendplan.planning.quoting.listed import LISTED
from blendplan.planning.quoting.offer import How, Offer
from blendplan.planning.quoting.prices import Prices, checked_prices
from blendplan.planning.quoting.work import Grounds, offers_of
from blendplan.planning.tail import Tail
from blendplan.policy.registry import POLICIES
from blendplan.printable import show
from blendplan.requests.columns import Requests

MOST_SIMULATED = 20_000
"""Requests of an engine that are simulated where only the best combinations are planned whole."""

MOST_COMBINATIONS = 10_000


@dataclass(frozen=True)
class Quote:
    """What the requests take on every combination that fits.

    Attributes:
        offers: cheapest first where there are prices, else fastest first; those without a price
            last.
        unfit: combinations that do not work, those that lack least first.
        prices: what was given of them.
        within_s: time limit in seconds, None without one.
        chance: probability with which a run must end within it.
        launches: names of the GPUs whose launches are known and left out, because those of others
            are not; see `blendplan.cost.launches`.
    """

    offers: tuple[Offer, ...]
    unfit: tuple[Unfit, ...]
    prices: Prices
    within_s: float | None
    chance: float
    launches: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What the reader should know of prices, models and lengths, each once."""
        found = dict.fromkeys(note for offer in self.offers for note in offer.notes)
        unpriced = {offer.gpu for offer in self.offers if self.prices.of(offer.gpu) is None}
        if self.prices and unpriced:
            found[f"no price is given for {', '.join(sorted(unpriced))}"] = None
        if self.launches:
            found[
                f"launches of steps are known of {', '.join(self.launches)} alone, and left out to "
                "compare; a plan has them"
            ] = None
        return tuple(found)

    def cost(self, offer: Offer) -> float | None:
        """Price of all GPU hours, None where there is no price."""
        price = self.prices.of(offer.gpu)
        return None if price is None else price * offer.gpu_hours

    def in_time(self, offer: Offer) -> bool:
        """Whether the run ends within the limit, as probably as it must."""
        return self.within_s is None or offer.outlook.chance(self.within_s) >= self.chance

    @cached_property
    def front(self) -> tuple[int, ...]:
        """Offers of which no other is both faster and cheaper, fastest first.

        Without prices GPU hours stand for the cost; with some, those without one are left out.
        """
        costs = [_worth(self.prices, offer) for offer in self.offers]
        priced = [index for index, cost in enumerate(costs) if cost is not None]
        found = front(
            [self.offers[index].makespan_s for index in priced],
            [cost for cost in costs if cost is not None],
        )
        return tuple(priced[one] for one in found)

    @cached_property
    def winner(self) -> int | None:
        """The cheapest offer in time, without prices the fastest; None where none is in time.

        With a limit and without prices it is the one of the fewest GPU hours.
        """
        ranked = [index for index, offer in enumerate(self.offers) if self.in_time(offer)]
        if self.within_s is not None and not self.prices:
            ranked.sort(key=lambda index: self.offers[index].gpu_hours)
        return ranked[0] if ranked else None


def quote(
    requests: Requests,
    *,
    gpu: str | Path | GpuSpec | Iterable[str | Path | GpuSpec],
    model: str | Path | ModelSpec | Iterable[str | Path | ModelSpec] = "llama-3.1-8b",
    tp: int | Iterable[int] = 1,
    replicas: int | Iterable[int] = 1,
    max_num_batched_tokens: int | Iterable[int] = EngineLimits.max_num_batched_tokens,
    max_num_seqs: int | Iterable[int] = EngineLimits.max_num_seqs,
    kv_dtype: str | Iterable[str] = "auto",
    prices: Prices | Mapping[str, float] | None = None,
    within_s: float | None = None,
    chance: float = 0.9,
    simulate: int = MOST_SIMULATED,
    processes: int | None = None,
    policy: str = "blend",
    lengths: str = "auto",
    preserve_sharing: float = 0.99,
    seed: int = 0,
    effort: int = 1,
    replan: bool = True,
    tail: float | None = None,
    soonest: str = "p95",
    progress: Progress | None = None,
    **engine: Any,
) -> Quote:
    """Plan the requests for every combination of machines and settings.

    Prompts are read, sorted into a prefix tree and given output lengths once for all of them. Where
    there are many requests, combinations are compared on a part; those on the front of time and
    cost, and the winner, are then planned whole, until all of these are.

    Args:
        requests: from `read_requests`, with the tokens of all models.
        gpu, model, tp, replicas, max_num_batched_tokens, max_num_seqs, kv_dtype: as of `plan`, one
            value or several.
        prices: price per GPU and hour, by GPU.
        within_s: time limit in seconds.
        chance: probability with which a run must end within it.
        simulate: requests of an engine that are simulated where its plan is not made whole.
        processes: that plan at the same time; as many as there are cores, at most 8, without it. A
            script that calls this with more than one does so under ``if __name__ == "__main__":``.
        policy, lengths, preserve_sharing, seed, effort, replan, tail, soonest, progress, engine: as
            of `plan`.

    Raises:
        BlendplanError: as `plan`, or no combination fits.
    """
    check_requests(requests)
    traded = None if tail is None else Tail(tail, soonest)
    options = PlanOptions(1, lengths, preserve_sharing, seed, effort, replan, progress)
    POLICIES.check(text("policy", policy, "give the name of a policy"))
    check_engine_arguments("quote", engine)
    asked = (gpu, model, tp, replicas, max_num_batched_tokens, max_num_seqs, kv_dtype)
    listed = checked_lists(dict(zip(LISTED, asked, strict=True)))
    within_s, chance = checked_window(within_s, chance)
    simulate = whole("simulate", simulate, 1, 1 << 40)
    if not isinstance(prices, Prices):
        names = [_gpu(one).name for one in listed["gpu"]]
        prices = Prices(checked_prices(prices or {}, names))
    report = progress or (lambda stage, done, total: None)
    launches = tuple(with_launches(_gpu(one) for one in listed["gpu"]))

    fitting, unfit = combinations(listed, engine)
    report("prefix tree and output lengths", 0, len(requests))
    how = How(
        policy, options.preserve_sharing, options.seed, options.effort, options.replan, traded
    )
    with Grounds(requests, options.lengths) as grounds:
        fitting, refused = grounds.fitting(fitting)
        unfit += refused
        if not fitting:
            raise none_fits(unfit)
        found = offers_of(grounds, fitting, how, simulate, processes, report)
        while True:
            made = _sorted(found, prices)
            offered = Quote(
                tuple(offer for offer, _ in made),
                _by_missing(unfit),
                prices,
                within_s,
                chance,
                launches,
            )
            best = {*offered.front, *([] if offered.winner is None else [offered.winner])}
            left = [made[one][1] for one in sorted(best) if not made[one][0].whole]
            if not left:
                return offered
            report("planning the best whole", 0, len(left))
            again = offers_of(grounds, left, how, None, processes, report)
            done = {id(combination) for combination in left}
            found = [pair for pair in found if id(pair[1]) not in done] + again


def _gpu(value: Any) -> GpuSpec:
    return value if isinstance(value, GpuSpec) else gpu_spec(value)


def _model(value: Any) -> ModelSpec:
    return value if isinstance(value, ModelSpec) else model_spec(value)


_SPECS = {"gpu": _gpu, "model": _model}


def checked_lists(given: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Values of each name as a list without repetitions, known names and numbers in range.

    Raises:
        BlendplanError: an empty list, an unknown name, a number out of range, or too many
            combinations.
    """
    listed: dict[str, list[Any]] = {}
    count = 1
    for name in LISTED:
        values = given[name]
        one = isinstance(values, str | Path | GpuSpec | ModelSpec) or not isinstance(
            values, Iterable
        )
        found = [values] if one else list(values)
        if name not in ("gpu", "model", "kv_dtype"):
            found = [whole(name, value) for value in found]
        if not found:
            raise BlendplanError(f"{name} is {show(values)}; give at least one value")
        # In the order given, each once, by whatever name.
        looked_up = [_SPECS[name](value) if name in _SPECS else value for value in found]
        listed[name] = [
            value for place, value in enumerate(found) if looked_up[place] not in looked_up[:place]
        ]
        count *= len(listed[name])
    if count > MOST_COMBINATIONS:
        raise BlendplanError(
            f"these are {count:,} combinations; a quote takes at most {MOST_COMBINATIONS:,}"
        )
    return listed


def checked_window(within_s: float | None, chance: float) -> tuple[float | None, float]:
    """A time limit and its probability.

    Raises:
        BlendplanError: one of them is no number, or out of its range.
    """
    if within_s is not None:
        within_s = number("within_s", within_s, 0.0, 1e12, above_least=True)
    return within_s, number("chance", chance, 0.0, 1.0, above_least=True)


def none_fits(unfit: Iterable[Unfit]) -> BlendplanError:
    """What to say where no combination works: the one that lacks least."""
    ranked = _by_missing(unfit)
    return BlendplanError(
        f"none of the {len(ranked):,} combinations fits; the nearest is "
        f"{named(ranked[0].settings)}: {ranked[0].reason}"
    )


def named(settings: Mapping[str, Any]) -> str:
    """The hardware of a combination in words: ``h100-80g, tp 4, replicas 2``."""
    gpu = settings["gpu"]
    name = gpu.name if isinstance(gpu, GpuSpec) else gpu
    return f"{name}, tp {settings['tp']}, replicas {settings['replicas']}"


def _by_missing(unfit: Iterable[Unfit]) -> tuple[Unfit, ...]:
    def lacks(one: Unfit) -> float:
        return float("inf") if one.missing_bytes is None else one.missing_bytes

    return tuple(sorted(unfit, key=lacks))


def _worth(prices: Prices, offer: Offer) -> float | None:
    """What the front weighs against time: cost, or GPU hours where nothing has a price."""
    if not prices:
        return offer.gpu_hours
    price = prices.of(offer.gpu)
    return None if price is None else price * offer.gpu_hours


def _sorted(
    found: Iterable[tuple[Offer, Combination]], prices: Prices
) -> list[tuple[Offer, Combination]]:
    def place(pair: tuple[Offer, Combination]) -> tuple[bool, float, float, int]:
        offer, _ = pair
        cost = _worth(prices, offer) if prices else 0.0
        return (cost is None, cost or 0.0, offer.makespan_s, offer.gpus)

    return sorted(found, key=place)

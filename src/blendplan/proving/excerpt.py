"""`excerpt`: some of the requests of a job that stand for all of them, and how well they do."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from blendplan.lengths.strata import strata_of
from blendplan.planning.part import thinned_rows
from blendplan.requests.columns import Requests, select
from blendplan.tree.build import build_tree
from blendplan.tree.prefix_tree import PrefixTree
from blendplan.tree.sharing import optimal_sharing

# Places of the stretches that are tried.
_SHIFTS = 32
# An excerpt that differs by less than this share is as good as the job, and a mix of kinds that
# differs by no more than so many times what chance would leave.
_ALIKE = 0.05
_CHANCES = 2.0


@dataclass(frozen=True)
class Excerpt:
    """Some of n requests.

    Attributes:
        rows: which, rising, so that they keep the order of the input; int64 [k].
        likeness: how like all requests they are, JSON values by name: ``prompt_tokens``,
            ``output_tokens`` and ``max_tokens``, means of those that state it, with ``deviation``
            as a share of that of all; ``capped``, the share that states ``max_tokens``, and
            ``prefix_sharing``, the best possible, with the difference; ``kinds``, how many there
            are of requests, and the share of the excerpt that would have to be of another kind.
    """

    rows: NDArray[np.int64]
    likeness: dict[str, Any]

    def __len__(self) -> int:
        return len(self.rows)

    def remarks(self) -> list[str]:
        """What differs by more than a twentieth and by more than chance, one line each."""
        said = [
            f"{words}: {_told(name, values['excerpt'])} in the excerpt, "
            f"{_told(name, values['whole'])} in all"
            for name, words in _WORDS.items()
            if abs((values := self.likeness[name])["deviation"] or 0.0) > _ALIKE
        ]
        kinds = self.likeness["kinds"]
        # Of a random choice, the mean difference to k about equal shares, in half.
        by_chance = math.sqrt((kinds["whole"] - 1) / (2 * math.pi * max(1, len(self))))
        if kinds["deviation"] > max(_ALIKE, _CHANCES * by_chance):
            said.append(
                f"the mix of requests: {kinds['deviation']:.0%} of the excerpt would have to be of "
                f"another of {kinds['whole']} kinds"
            )
        return [f"the excerpt is not quite like the job in {one}" for one in said]


_WORDS = {
    "prompt_tokens": "the mean prompt, in tokens",
    "output_tokens": "the mean output, in tokens",
    "max_tokens": "the mean max_tokens",
    "capped": "the share of requests with max_tokens",
    "prefix_sharing": "the share of prompt tokens that can be shared",
}
_SHARES = ("capped", "prefix_sharing")


def _told(name: str, value: float) -> str:
    return f"{100 * value:.1f} %" if name in _SHARES else f"{value:,.4g}"


def excerpt(requests: Requests, tree: PrefixTree, most: int) -> Excerpt:
    """Choose ``most`` of the requests, all where there are no more.

    They are even stretches of the depth-first order. Where these begin is tried in a few ways, and
    the one is taken whose requests are most like all.

    Args:
        requests: n requests.
        tree: of those, before any split.
        most: how many to take.
    """
    numbers = strata_of(requests, tree).number
    if len(requests) <= most:
        return _chosen(requests, tree, numbers, np.arange(len(requests)))
    tries = [thinned_rows(tree.order, most, shift / _SHIFTS) for shift in range(_SHIFTS)]
    rows = min(tries, key=lambda rows: _strangeness(requests, numbers, rows))
    return _chosen(requests, tree, numbers, rows)


def _strangeness(requests: Requests, numbers: NDArray[np.int64], rows: NDArray[np.int64]) -> float:
    """How unlike all requests some are, where that is quickly seen."""
    means = _means(requests, rows)
    off = [abs(mean["deviation"] or 0.0) for mean in means.values()]
    return max(*off, _kinds(numbers, rows)["deviation"])


def _chosen(
    requests: Requests, tree: PrefixTree, numbers: NDArray[np.int64], rows: NDArray[np.int64]
) -> Excerpt:
    capped = requests.max_tokens >= 0
    sharing = optimal_sharing(tree), optimal_sharing(build_tree(select(requests, rows)))
    likeness = {
        "requests": {"whole": len(requests), "excerpt": len(rows)},
        **_means(requests, rows),
        "capped": _difference(float(capped.mean()), float(capped[rows].mean())),
        "prefix_sharing": _difference(*sharing),
        "kinds": _kinds(numbers, rows),
    }
    return Excerpt(rows, likeness)


def _means(requests: Requests, rows: NDArray[np.int64]) -> dict[str, dict[str, float | None]]:
    columns = {
        "prompt_tokens": requests.prompt_tokens,
        "output_tokens": requests.output_tokens,
        "max_tokens": requests.max_tokens,
    }
    return {name: _mean(column, column[rows]) for name, column in columns.items()}


def _mean(whole: ArrayLike, part: ArrayLike) -> dict[str, float | None]:
    """Means of what is stated, which is no less than 0; None where nothing is."""
    stated = [column[column >= 0] for column in (np.asarray(whole), np.asarray(part))]
    if not all(map(len, stated)):
        return {"whole": None, "excerpt": None, "deviation": None}
    of_whole, of_part = (float(column.mean()) for column in stated)
    share = of_part / of_whole - 1.0 if of_whole else 0.0
    return {"whole": of_whole, "excerpt": of_part, "deviation": share}


def _difference(whole: float, part: float) -> dict[str, float]:
    return {"whole": whole, "excerpt": part, "deviation": part - whole}


def _kinds(number: NDArray[np.int64], rows: NDArray[np.int64]) -> dict[str, Any]:
    kinds = int(number.max()) + 1
    whole, part = (np.bincount(of, minlength=kinds) / len(of) for of in (number, number[rows]))
    return {
        "whole": int((whole > 0).sum()),
        "excerpt": int((part > 0).sum()),
        "deviation": float(np.abs(whole - part).sum() / 2),
    }

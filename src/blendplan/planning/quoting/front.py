"""`front`: the offers of which no other is both faster and cheaper."""

from collections.abc import Sequence


def front(makespans_s: Sequence[float], costs: Sequence[float]) -> list[int]:
    """Indices of the Pareto front of time and cost, fastest first.

    Of two that are alike in both, the first is in it.

    Args:
        makespans_s, costs: of each offer.

    >>> front([3.0, 1.0, 2.0, 2.5], [1.0, 4.0, 2.0, 3.0])
    [1, 2, 0]
    """
    found: list[int] = []
    order = sorted(range(len(costs)), key=lambda one: (makespans_s[one], costs[one], one))
    for one in order:
        if not found or costs[one] < costs[found[-1]]:
            found.append(one)
    return found

"""How far the mean of a few samples is to be trusted against that of the many they belong to.

Empirical Bayes, known in insurance as credibility (H. Bühlmann and E. Straub, "Glaubwürdigkeit für
Schadensätze", 1970): the mean of n samples counts n / (n + k) and that of the population the rest,
with k = (variance within groups) / (variance of the groups' true means).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Sums over the samples x of each of g groups.

    Attributes:
        count: how many; float64 [g].
        total: sum of x; float64 [g].
        squares: sum of x^2; float64 [g].
    """

    count: FloatArray
    total: FloatArray
    squares: FloatArray

    @property
    def mean(self) -> FloatArray:
        """Mean, 0 where there is no sample; float64 [g]."""
        return self.total / np.maximum(self.count, 1.0)

    @property
    def deviation(self) -> FloatArray:
        """Sum of squared deviations from the mean; float64 [g]."""
        # What rounding leaves of a difference of sums is no deviation.
        apart = self.squares - self.total * self.mean
        return np.where(apart > 1e-9 * self.squares, apart, 0.0)


@dataclass(frozen=True)
class Evidence:
    """What the groups of each of p populations say of the variance between groups.

    Attributes:
        between: excess of the variation between groups over what chance explains; float64 [p].
        weight: samples that say so, about; ``between / weight`` estimates 1 / k; float64 [p].
    """

    between: FloatArray
    weight: FloatArray

    def ratio(self, prior: FloatArray | float, prior_samples: float) -> FloatArray:
        """Estimate of 1 / k, when `prior` is what as many earlier samples said; float64 [p]."""
        summed = self.between + prior_samples * prior
        return np.maximum(0.0, summed / (self.weight + prior_samples))


def compare_groups(
    groups: Moments, population: NDArray[np.integer[Any]], populations: int, prior_samples: float
) -> tuple[Evidence, FloatArray]:
    """Compare the groups of each population by an analysis of variance.

    Two samples of one group tell the variance within groups from that between them. Where hardly
    any group has two, the evidence weighs next to nothing, and the variance within groups is taken
    to be that of all samples.

    Args:
        groups: g groups.
        population: to which each belongs; int [g].
        populations: p, how many there are.
        prior_samples: samples that the variance of all counts as within a group.

    Returns:
        the evidence, and the variance within the groups of each population; float64 [p].
    """

    def summed(values: FloatArray) -> FloatArray:
        return np.bincount(population, values, populations).astype(np.float64)

    whole = Moments(summed(groups.count), summed(groups.total), summed(groups.squares))
    used = summed((groups.count > 0).astype(np.float64))
    pairs = np.maximum(0.0, whole.count - used)
    inside = summed(groups.deviation)
    apart = np.maximum(0.0, whole.deviation - inside)
    freedom = np.maximum(1.0, whole.count - 1.0)
    within = (inside + prior_samples * whole.deviation / freedom) / np.maximum(
        1.0, pairs + prior_samples
    )
    # E[apart] = (groups - 1) within + scale * (variance between).
    scale = whole.count - summed(groups.count**2) / np.maximum(1.0, whole.count)
    chance = np.where(within > 0.0, np.maximum(0.0, used - 1.0), 0.0)
    told = pairs / freedom
    between = told * (apart / np.where(within > 0.0, within, 1.0) - chance)
    return Evidence(between, told * np.maximum(0.0, scale)), within


def credibility(
    groups: Moments,
    ratio: FloatArray,
    within: FloatArray,
    prior_samples: float,
) -> FloatArray:
    """Share that each group's own mean has in its estimate, 0 to 1; float64 [g].

    A group whose samples agree is trusted sooner: k is in proportion to its own variance, which
    counts with its samples less one against `prior_samples` of the variance within all groups.

    Args:
        groups: g groups.
        ratio: 1 / k in the population of each; float64 [g].
        within: variance within the groups of that population; float64 [g].
        prior_samples: see above.
    """
    freedom = np.maximum(0.0, groups.count - 1.0)
    own = (groups.deviation + prior_samples * within) / (freedom + prior_samples)
    relative = np.where(within > 0.0, own / np.where(within > 0.0, within, 1.0), 1.0)
    weighed = groups.count * ratio
    return np.where(groups.count > 0, weighed / np.maximum(weighed + relative, 1e-300), 0.0)

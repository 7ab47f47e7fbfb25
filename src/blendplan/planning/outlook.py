"""`Outlook`: how long a plan may take, given how long the outputs may turn out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from blendplan.cost.machine import Machine
from blendplan.lengths.plausible import plausible_outputs
from blendplan.lengths.protocol import longest_outputs
from blendplan.planning.prepare import Prepared
from blendplan.planning.schedule_bound import schedule_bound

DRAWS = 64
"""How often all lengths are drawn."""

# Runs of larger jobs are not simulated again: they are long enough to be alike from end to end.
_MOST_SIMULATED = 20_000
# Where in the distribution of the common factor runs are simulated.
_NODES = (0.2, 0.8, 0.95)
# A common factor that varies less than this makes no other run.
_LITTLE = 0.05
_GOLDEN = (5**0.5 - 1) / 2

Simulate = Callable[[NDArray[np.int32]], float]
"""Makespan in seconds of a run with these output lengths; int32 [s]."""


@dataclass(frozen=True)
class Outlook:
    """Equally likely makespans of one plan.

    Attributes:
        makespans_s: one for each draw of all lengths; float64 [DRAWS]. One in all where every
            length is known.
    """

    makespans_s: NDArray[np.float64]

    def quantile(self, share: float) -> float:
        """The makespan that is not exceeded with this probability, in seconds."""
        return float(np.quantile(self.makespans_s, share))

    def chance(self, within_s: float) -> float:
        """Probability that the run ends within so many seconds."""
        return float(np.mean(self.makespans_s <= within_s))

    def scaled(self, factor: float) -> "Outlook":
        """Of a run that takes so many times as long."""
        return Outlook(factor * self.makespans_s)

    def as_metadata(self) -> dict[str, float]:
        """For JSON: ``p50`` and ``p90``."""
        return {"p50": self.quantile(0.5), "p90": self.quantile(0.9)}


def together(parts: Sequence[Outlook]) -> Outlook:
    """Of engines that run side by side, where the last one ends the run.

    A draw has the same factor, and each request the same length, in every part.
    """
    makespans_s = parts[0].makespans_s
    for part in parts[1:]:
        makespans_s = np.maximum(makespans_s, part.makespans_s)
    return Outlook(makespans_s)


def outlook(prepared: Prepared, target: Machine, makespan_s: float, simulate: Simulate) -> Outlook:
    """What the makespan of a simulated run may become, as output lengths turn out otherwise.

    All lengths are drawn anew from their predictions, `DRAWS` times, and each time all that are not
    known are also multiplied by one factor: predictions may be off together, by as much as
    `Lengths.common_error` says. The lower bound on the makespan is worked out for each draw. By how
    much a run exceeds it is simulated for a few factors only, and taken to lie between these for
    the others. This is about lengths alone; errors of the cost model come on top.

    Args:
        prepared: the requests.
        target: the machine.
        makespan_s: of the simulated run of ``prepared.workload``.
        simulate: runs the same plan with other output lengths; it need not learn them on the way,
            which takes far longer: only the ratio of such runs counts.
    """
    if not prepared.expected.unsure.any():
        return Outlook(np.array([makespan_s]))
    draws = _Draws(prepared, target)
    error = prepared.lengths.common_error
    happens = prepared.workload.output_tokens
    logs, excess = [0.0], [1.0]
    if error > _LITTLE and len(prepared.sequences) <= _MOST_SIMULATED:
        excess = [simulate(happens) / draws.bound_s(happens)]
        for draw, place in enumerate(_NODES, start=1):
            outputs = draws.drawn(draw, float(np.exp(error * ndtri(place))))
            logs.append(error * float(ndtri(place)))
            excess.append(simulate(outputs) / draws.bound_s(outputs))
    rising = np.argsort(logs)
    share = makespan_s / draws.bound_s(happens) / excess[0]
    factors = common_factors(error, DRAWS)
    longer = share * np.interp(np.log(factors), np.array(logs)[rising], np.array(excess)[rising])
    bounds_s = [draws.bound_s(draws.drawn(draw, factor)) for draw, factor in enumerate(factors)]
    return Outlook(longer * np.array(bounds_s))


def common_factors(error: float, draws: int) -> NDArray[np.float64]:
    """Log-normal factors, spread evenly over their distribution; the first is 1; float64 [draws].

    Args:
        error: standard deviation of the factor's logarithm.
        draws: how many.
    """
    # An additive sequence: every stretch of it is spread evenly.
    place = (0.5 + _GOLDEN * np.arange(draws)) % 1.0
    factors: NDArray[np.float64] = np.exp(error * ndtri(place))
    return factors


class _Draws:
    """Output lengths of all sequences as they may turn out."""

    def __init__(self, prepared: Prepared, target: Machine) -> None:
        self._prepared, self._target = prepared, target
        room = target.room_for_output(prepared.workload.prompt_tokens.astype(np.int64))
        caps = prepared.sequences.spread(longest_outputs(prepared.requests.max_tokens))
        self._most = np.maximum(1, np.minimum(caps, room))
        self._unsure, self._numbers = prepared.expected.unsure, prepared.numbers

    def drawn(self, draw: int, factor: float) -> NDArray[np.int32]:
        """One draw, with all lengths that are not known multiplied by a factor; int32 [s]."""
        outcomes, seed = self._prepared.expected.outcomes, self._prepared.seed
        lengths = plausible_outputs(outcomes, self._numbers, seed + draw)
        scaled = np.clip(np.rint(factor * lengths), 1, self._most)
        return np.where(self._unsure, scaled, lengths).astype(np.int32)

    def bound_s(self, output_tokens: NDArray[np.int32]) -> float:
        """Lower bound on the makespan with these lengths."""
        return schedule_bound(self._prepared, self._target, output_tokens).makespan_s

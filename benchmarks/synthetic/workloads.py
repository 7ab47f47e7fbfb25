"""`synthesize`: a workload from trace names and two numbers; the paper's four by name."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from benchmarks.synthetic.mixture import Family, Mixture, measure, scaled_outputs, solve_counts
from benchmarks.synthetic.pools import Pool, load_pool, traces_folder
from benchmarks.synthetic.prompts import write_prompts
from numpy.typing import NDArray

from blendplan.cost.datasheet import datasheet_cost
from blendplan.cost.protocol import CostModel
from blendplan.errors import BlendplanError
from blendplan.hardware.lookup import gpu_spec, model_spec
from blendplan.names import unknown
from blendplan.requests.columns import Requests

# Density and sharing may miss the target by this share of it.
_TOLERANCE = 0.02
# Enough for the means of a stated distribution.
_SAMPLE = 4_096


@dataclass(frozen=True)
class Recipe:
    """What a workload is made of.

    Attributes:
        compute: compute-heavy source, a name that `load_pool` knows.
        memory: memory-heavy source mixed in until the density is reached; None for none.
        density: target compute density.
        sharing: target optimal prefix sharing ratio, reached by adding MMLU; None adds none.
    """

    compute: str = "burstgpt"
    memory: str | None = "openvid"
    density: float | None = None
    sharing: float | None = None


PAPER_TRACES = {
    "trace1": Recipe(density=1.4, sharing=0.35),
    "trace2": Recipe(density=0.9, sharing=0.35),
    "trace3": Recipe(density=1.4, sharing=0.05),
    "trace4": Recipe(density=0.9, sharing=0.05),
}
"""The workloads of the paper's table 2."""


def recipe(name: str) -> Recipe:
    """The recipe of one of the paper's workloads.

    Raises:
        BlendplanError: an unknown name.
    """
    if name in PAPER_TRACES:
        return PAPER_TRACES[name]
    raise BlendplanError(unknown("workload", name, PAPER_TRACES))


def paper_trace(
    name: str,
    traces: Path | str,
    *,
    requests: int = 400_000,
    seed: int = 0,
    costs: CostModel | None = None,
) -> Requests:
    """One of the paper's workloads (table 2): ``trace1`` to ``trace4``.

    Args: as of `synthesize`.
    """
    return synthesize(recipe(name), traces, requests=requests, seed=seed, costs=costs)


def synthesize(
    recipe: Recipe,
    traces: Path | str,
    *,
    requests: int = 400_000,
    seed: int = 0,
    costs: CostModel | None = None,
) -> Requests:
    """A workload made as the paper makes its own (A.3), with known output lengths.

    A compute-heavy and a memory-heavy source in the ratio that gives the density, MMLU added until
    the sharing is reached, a system prompt for each source, and random token ids.

    Args:
        recipe: sources, density and sharing.
        traces: folder with the trace files, or one with a folder ``traces`` in it.
        requests: how many.
        seed: decides rows, token ids and the input order, which is a shuffle.
        costs: prices that define the density; by default the paper's formula for Llama-3.1-8B on
            an A100 with 80 GB.

    Raises:
        BlendplanError: an unknown or missing trace, or a recipe that no mixture fulfils.
    """
    return write_prompts(mix(recipe, traces, requests=requests, seed=seed, costs=costs), seed)


def mix(
    recipe: Recipe,
    traces: Path | str,
    *,
    requests: int = 400_000,
    seed: int = 0,
    costs: CostModel | None = None,
) -> Mixture:
    """Lengths of the requests of `synthesize`, and what they add up to; same arguments."""
    _check(recipe, requests)
    if costs is None:
        costs = datasheet_cost(model_spec("llama-3.1-8b"), gpu_spec("a100-80g"))
    names = [recipe.compute]
    names += [recipe.memory] if recipe.memory is not None else []
    names += ["mmlu"] if recipe.sharing is not None else []
    folder = traces_folder(traces)
    pools = [load_pool(name, folder) for name in names]
    samples = [_drawn(pool, max(_SAMPLE, requests // 4), seed, k) for k, pool in enumerate(pools)]
    families = samples
    # The first counts follow from samples, the second from about the rows that will be used.
    for _ in range(2):
        solved = solve_counts(families, costs, requests, recipe.density, recipe.sharing)
        counts = np.rint(solved).astype(np.int64)
        counts[0] = requests - counts[1:].sum()
        if counts.min() < 1:
            raise _impossible(recipe, requests, samples, solved, costs)
        families = [
            _drawn(pool, int(count), seed, k)
            for k, (pool, count) in enumerate(zip(pools, counts, strict=True))
        ]
    if recipe.density is not None and pools[1].stated:
        others = [families[0], *families[2:]]
        families[1] = scaled_outputs(families[1], others, costs, recipe.density)
    mixture = measure(families, costs)
    _check_reached("density", recipe.density, mixture.density, requests)
    _check_reached("sharing", recipe.sharing, mixture.sharing, requests)
    return mixture


def _drawn(pool: Pool, count: int, seed: int, stream: int) -> Family:
    return Family(pool.name, pool.draw(count, np.random.default_rng((seed, 0, stream))))


def _check(recipe: Recipe, requests: int) -> None:
    if requests < 1:
        raise BlendplanError(f"{requests} requests asked for; give at least 1")
    if (recipe.density is None) != (recipe.memory is None):
        raise BlendplanError(
            f"memory-heavy trace {recipe.memory!r} with density {recipe.density}: "
            "give both or neither"
        )
    if recipe.density is not None and not (0.0 < recipe.density < np.inf):
        raise BlendplanError(f"density {recipe.density}: give a number above 0")
    if recipe.sharing is not None and not 0.0 < recipe.sharing < 1.0:
        raise BlendplanError(f"sharing {recipe.sharing}: give a number between 0 and 1")


def _check_reached(what: str, target: float | None, reached: float, requests: int) -> None:
    if target is not None and abs(reached - target) > _TOLERANCE * target:
        raise BlendplanError(
            f"{requests:,} requests reach {what} {reached:.3g} instead of {target:g}: too few "
            "to mix it; ask for more"
        )


def _impossible(
    recipe: Recipe,
    requests: int,
    samples: list[Family],
    solved: NDArray[np.float64],
    costs: CostModel,
) -> BlendplanError:
    targets = {"density": recipe.density, "sharing": recipe.sharing}
    described = " and ".join(f"{name} {value:g}" for name, value in targets.items() if value)
    sources = []
    for sample, count in zip(samples, solved, strict=True):
        alone = measure([sample], costs)
        sources.append(
            f"{count / requests:.2%} {sample.name} (by itself density {alone.density:.3g}, "
            f"sharing {alone.sharing:.2g})"
        )
    return BlendplanError(
        f"no {requests:,} requests of these traces have {described}: it would take "
        f"{', '.join(sources)}; ask for something in between, or for more requests"
    )

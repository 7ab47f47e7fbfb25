"""`density_map`: requests by prompt and output length, with their compute densities (Figure 4)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_CELLS_PER_DOUBLING = 2


@dataclass(frozen=True)
class DensityMap:
    """Requests in cells of a grid of lengths; k non-empty cells.

    Attributes:
        prompt_tokens, output_tokens: lower corner of each cell; float64 [k].
        factor: upper corner over lower corner, in both directions.
        requests: in each cell; int64 [k].
        demand_s: compute plus memory seconds of a cell's requests; float64 [k].
        density: compute over memory seconds of a cell's requests, prefix sharing left out;
            float64 [k].
    """

    prompt_tokens: NDArray[np.float64]
    output_tokens: NDArray[np.float64]
    factor: float
    requests: NDArray[np.int64]
    demand_s: NDArray[np.float64]
    density: NDArray[np.float64]


def density_map(
    prompt_tokens: NDArray[np.int32],
    output_tokens: NDArray[np.int32],
    compute_s: NDArray[np.float64],
    memory_s: NDArray[np.float64],
) -> DensityMap:
    """Gather requests into cells whose sides are half a doubling of a length.

    Args:
        prompt_tokens, output_tokens: lengths, at least 1; int32 [n].
        compute_s, memory_s: demand of each request by itself; float64 [n].
    """
    x = np.floor(np.log2(np.maximum(prompt_tokens, 1)) * _CELLS_PER_DOUBLING).astype(np.int64)
    y = np.floor(np.log2(np.maximum(output_tokens, 1)) * _CELLS_PER_DOUBLING).astype(np.int64)
    cells, cell = np.unique(np.stack([x, y]), axis=1, return_inverse=True)
    cell = cell.ravel()
    compute = np.bincount(cell, compute_s, minlength=cells.shape[1]).astype(np.float64)
    memory = np.bincount(cell, memory_s, minlength=cells.shape[1]).astype(np.float64)
    density = np.divide(compute, memory, out=np.full(len(compute), np.inf), where=memory > 0)
    return DensityMap(
        prompt_tokens=2.0 ** (cells[0] / _CELLS_PER_DOUBLING),
        output_tokens=2.0 ** (cells[1] / _CELLS_PER_DOUBLING),
        factor=2.0 ** (1.0 / _CELLS_PER_DOUBLING),
        requests=np.bincount(cell, minlength=cells.shape[1]),
        demand_s=compute + memory,
        density=density,
    )

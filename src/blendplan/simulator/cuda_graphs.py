"""Which CUDA-graph batch sizes to capture, given how often each decode batch size is expected.

An engine pads a decode batch to the next captured size and computes the padding in vain. Every
captured size costs start-up time and memory, so there may only be so many.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendplan.errors import BlendplanError


def graph_sizes(batch_steps: Mapping[int, int], most: int, *, reach: int = 0) -> list[int]:
    """The at most ``most`` sizes that pad the fewest tokens over all steps; exact.

    The largest expected batch is always covered, for beyond the largest captured size an engine
    decodes without graphs.

    Args:
        batch_steps: expected number of steps by decode batch size.
        most: largest number of sizes, at least 1.
        reach: the sizes reach at least this far, for batches larger than expected.

    Returns:
        ascending sizes; empty when no decode step is expected.

    Raises:
        BlendplanError: ``most`` is less than 1.
    """
    if most < 1:
        raise BlendplanError(f"{most} CUDA-graph sizes; at least 1 is needed")
    expected = {size for size, steps in batch_steps.items() if size and steps}
    if expected and reach > max(expected):
        expected.add(reach)
    sizes = np.array(sorted(expected), dtype=np.int64)
    if len(sizes) <= most:
        return [int(size) for size in sizes]
    steps = np.array([batch_steps.get(int(size), 0) for size in sizes], dtype=np.int64)
    return [int(sizes[last]) for last in _best_split(sizes, steps, most)]


def padded_tokens(batch_steps: Mapping[int, int], sizes: Iterable[int]) -> tuple[int, int]:
    """Tokens that captured ``sizes`` pad over all steps, and steps that outgrow them all."""
    captured = np.array(sorted(sizes), dtype=np.int64)
    padding = outside = 0
    for size, steps in batch_steps.items():
        place = int(np.searchsorted(captured, size))
        if place == len(captured):
            outside += steps
        elif size:
            padding += int(captured[place] - size) * steps
    return padding, outside


def graph_padding(batch_steps: Mapping[int, int], max_num_seqs: int) -> dict[str, Any]:
    """What the chosen sizes would pad, beside the grid that vLLM captures unasked.

    As many sizes are chosen as that grid has, so that they cost no more to capture.

    Args:
        batch_steps: expected number of steps by decode batch size.
        max_num_seqs: most requests that may run at once; the sizes reach that far.

    Returns:
        ``sizes``; ``padding``, the padded tokens per decoded token with these sizes;
        ``default_padding`` with the grid; ``default_outside``, the share of the decoding steps that
        are too large for it.
    """
    grid = default_grid(max_num_seqs)
    sizes = graph_sizes(batch_steps, len(grid), reach=max_num_seqs)
    tokens = max(1, sum(size * steps for size, steps in batch_steps.items()))
    decoding_steps = max(1, sum(steps for size, steps in batch_steps.items() if size))
    padded, _ = padded_tokens(batch_steps, sizes)
    default_padded, outside = padded_tokens(batch_steps, grid)
    return {
        "sizes": sizes,
        "padding": padded / tokens,
        "default_padding": default_padded / tokens,
        "default_outside": outside / decoding_steps,
    }


def default_grid(max_num_seqs: int) -> list[int]:
    """The sizes that vLLM captures unasked (vllm/config/vllm.py, 0.32, before Blackwell)."""
    largest = min(2 * max_num_seqs, 512)
    grid = [1, 2, 4, *range(8, 256, 8), *range(256, largest + 1, 16)]
    return [size for size in grid if size <= largest]


def _best_split(sizes: NDArray[np.int64], steps: NDArray[np.int64], most: int) -> list[int]:
    """Last index of each of ``most`` runs of consecutive sizes, each padded to its largest.

    ``cheapest[j]`` is the least padding of the sizes before j, in as many runs as rounds so far;
    a run from i to j - 1 pads sum over it of steps * (sizes[j - 1] - size).
    """
    count = len(sizes)
    steps_before = np.concatenate([[0], np.cumsum(steps)])
    tokens_before = np.concatenate([[0], np.cumsum(steps * sizes)])
    run_padding = sizes[None, :] * (steps_before[None, 1:] - steps_before[:-1, None]) - (
        tokens_before[None, 1:] - tokens_before[:-1, None]
    )
    never = np.iinfo(np.int64).max // 2
    run_padding[np.tril_indices(count, -1)] = never  # a run does not end before it begins
    cheapest = run_padding[0]
    starts = []
    for _ in range(1, most):
        # total[i, j]: the sizes before i in the runs so far, then one run from i to j.
        total = np.concatenate([[never], cheapest[:-1]])[:, None] + run_padding
        start = np.argmin(total, axis=0)
        starts.append(start)
        cheapest = total[start, np.arange(count)]
    ends = [count - 1]
    for start in reversed(starts):
        ends.append(int(start[ends[-1]]) - 1)
    return sorted(ends)

"""CUDA-graph sizes against every possible choice."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blendplan.errors import BlendplanError
from blendplan.simulator.cuda_graphs import (
    default_grid,
    graph_padding,
    graph_sizes,
    padded_tokens,
)

histograms = st.dictionaries(st.integers(1, 40), st.integers(1, 1000), min_size=1, max_size=9)


def least_padding(batch_steps: dict[int, int], most: int, reach: int) -> int:
    """The least padding over all sets of sizes that cover the largest batch, by trying them all."""
    candidates = sorted(batch_steps)
    top = max([*candidates, reach])
    below = [size for size in candidates if size < top]
    return min(
        padded_tokens(batch_steps, [*chosen, top])[0]
        for count in range(most)
        for chosen in combinations(below, min(count, len(below)))
    )


@settings(max_examples=200, deadline=None)
@given(batch_steps=histograms, most=st.integers(1, 6), reach=st.integers(0, 50))
def test_no_choice_pads_less(batch_steps: dict[int, int], most: int, reach: int) -> None:
    sizes = graph_sizes(batch_steps, most, reach=reach)
    assert len(sizes) <= most
    assert sizes == sorted(set(sizes))
    assert sizes[-1] >= max(max(batch_steps), reach)
    padding, outside = padded_tokens(batch_steps, sizes)
    assert outside == 0
    assert padding == least_padding(batch_steps, most, reach)


def test_padding_is_counted_per_step() -> None:
    # Two steps of 3 and one of 5 go to 8, one of 9 has no graph, empty steps decode nothing.
    assert padded_tokens({0: 7, 3: 2, 5: 1, 9: 1}, [8]) == (2 * 5 + 3, 1)


def test_one_size_is_the_largest_batch() -> None:
    assert graph_sizes({3: 100, 17: 1}, 1) == [17]


def test_steps_that_never_decode_need_no_sizes() -> None:
    assert graph_sizes({0: 12}, 4, reach=64) == []


def test_no_sizes_are_refused() -> None:
    with pytest.raises(BlendplanError, match="at least 1"):
        graph_sizes({1: 1}, 0)


def test_default_grid_is_the_engine_s() -> None:
    assert default_grid(8) == [1, 2, 4, 8, 16]
    assert default_grid(1024)[-2:] == [496, 512]
    assert len(default_grid(1024)) == 3 + 31 + 17


def test_chosen_sizes_pad_no_more_than_the_default_grid() -> None:
    batch_steps = {0: 5, **{size: size % 7 + 1 for size in range(1, 600)}}
    told = graph_padding(batch_steps, 1024)
    assert len(told["sizes"]) <= len(default_grid(1024))
    assert told["sizes"][-1] == 1024
    small = {size: steps for size, steps in batch_steps.items() if size <= 512}
    assert graph_padding(small, 512)["padding"] <= graph_padding(small, 512)["default_padding"]
    outside = sum(steps for size, steps in batch_steps.items() if size > 512)
    decoding = sum(steps for size, steps in batch_steps.items() if size)
    assert told["default_outside"] == pytest.approx(outside / decoding)

"""What attention of several reaches sees, against counting it token by token."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blendplan.cost.reach import (
    ALL_TOKENS,
    Reach,
    growing_share,
    mean_read,
    pairs_of,
    pairs_up_to,
    reach_as_metadata,
    reach_from_metadata,
    reads,
    reads_up_to,
    sees_all,
    tokens_read,
    tokens_read_by,
)
from blendplan.errors import BlendplanError

KINDS = st.lists(
    st.tuples(st.integers(0, 12), st.booleans(), st.floats(0.01, 1.0), st.floats(0.01, 1.0)),
    min_size=1,
    max_size=4,
)


def _reach(kinds: list[tuple[int, bool, float, float]]) -> Reach:
    tokens, chunked, pairs, reads = (np.array(column) for column in zip(*kinds, strict=True))
    return Reach(tokens, chunked & (tokens > 0), pairs / pairs.sum(), reads / reads.sum())


def _seen(reach: Reach, kind: int, position: int) -> int:
    """Tokens from 0 on that the one at a position looks at."""
    tokens = int(reach.tokens[kind])
    if tokens == 0:
        return position + 1
    if reach.chunked[kind]:
        return sum(key // tokens == position // tokens for key in range(position + 1))
    return sum(position - key < tokens for key in range(position + 1))


@given(KINDS, st.integers(0, 40), st.integers(0, 40))
def test_sums_are_those_of_single_tokens(
    kinds: list[tuple[int, bool, float, float]], before: int, new: int
) -> None:
    reach = _reach(kinds)
    numbers = range(len(kinds))
    positions = range(before, before + new)
    pairs = sum(reach.pair_share[k] * _seen(reach, k, x) for k in numbers for x in positions)
    assert pairs_of(reach, before, new) == pytest.approx(pairs, abs=1e-9)
    grown = pairs_up_to(reach, before + new) - pairs_up_to(reach, before)
    assert float(grown) == pytest.approx(pairs, abs=1e-9)
    read = [sum(reach.read_share[k] * _seen(reach, k, x) for k in numbers) for x in positions]
    grown = reads_up_to(reach, before + new) - reads_up_to(reach, before)
    assert float(grown) == pytest.approx(sum(read), abs=1e-9)
    assert tokens_read_by(reach, [x + 1 for x in positions]) == pytest.approx(sum(read), abs=1e-9)
    if new:
        assert tokens_read(reach, before + 1) == pytest.approx(read[0], abs=1e-9)


@given(KINDS, st.integers(0, 40), st.integers(1, 40))
def test_reads_of_a_request_are_an_integral(
    kinds: list[tuple[int, bool, float, float]], prompt: int, output: int
) -> None:
    """Between two whole numbers of tokens a window grows by one or not at all, so half counts."""
    reach = _reach(kinds)
    total = partial = 0.0
    for context in range(prompt, prompt + output):
        for kind, tokens in enumerate(reach.tokens.tolist()):
            share, seen = reach.read_share[kind], context + 0.5
            if tokens and reach.chunked[kind]:
                seen = context % tokens + 0.5
            elif tokens:
                seen = min(seen, tokens)
            total += share * seen
            partial += share * seen if tokens else 0.0
    assert float(reads(reach, prompt, output)) == pytest.approx(total, abs=1e-9)
    assert float(mean_read(reach, prompt, output)) == pytest.approx(partial / output, abs=1e-9)


def test_all_tokens_are_counted_as_they_are() -> None:
    assert sees_all(ALL_TOKENS)
    assert growing_share(ALL_TOKENS) == 1.0
    assert pairs_of(ALL_TOKENS, 7, 3) == 8 + 9 + 10
    assert tokens_read(ALL_TOKENS, 9) == 9.0
    assert float(mean_read(ALL_TOKENS, 5.0, 3.0)) == 0.0
    assert not sees_all(_reach([(4, False, 1.0, 1.0)]))
    assert not sees_all(_reach([(0, False, 1.0, 1.0), (4, True, 1.0, 1.0)]))


def test_metadata_give_the_reach_back() -> None:
    reach = _reach([(0, False, 0.1, 0.7), (128, False, 0.3, 0.2), (8192, True, 0.6, 0.1)])
    read = reach_from_metadata(json.loads(json.dumps(reach_as_metadata(reach))), "reach")
    assert all(np.array_equal(a, b) for a, b in zip(read, reach, strict=True))
    assert [column.dtype for column in read] == [column.dtype for column in ALL_TOKENS]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": [-1]}, "reach.tokens is -1"),
        ({"tokens": [1, 2]}, "as long as each other"),
        ({"tokens": []}, "as long as each other"),
        ({"chunked": [2]}, "reach.chunked is 2"),
        ({"read_share": ["much"]}, 'reach.read_share is "much"'),
        ({"pair_share": [float("nan")]}, "reach.pair_share is NaN"),
        ({"more": [1]}, "expected the columns tokens, chunked"),
    ],
)
def test_other_metadata_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(BlendplanError, match=message):
        reach_from_metadata(reach_as_metadata(ALL_TOKENS) | change, "reach")


def test_no_columns_are_refused() -> None:
    with pytest.raises(BlendplanError, match="reach: expected the columns"):
        reach_from_metadata([1], "reach")

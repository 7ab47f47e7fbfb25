"""The front of time and cost, against looking at every pair."""

from hypothesis import given
from hypothesis import strategies as st

from blendplan.planning.quoting.front import front

PAIRS = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=30)


@given(PAIRS)
def test_the_front_is_what_nothing_dominates(pairs: list[tuple[int, int]]) -> None:
    found = front([time for time, _ in pairs], [cost for _, cost in pairs])
    dominated = {
        one
        for one, (time, cost) in enumerate(pairs)
        for other, (others_time, others_cost) in enumerate(pairs)
        if (others_time <= time and others_cost <= cost)
        and ((others_time, others_cost) != (time, cost) or other < one)
    }
    assert set(found) == set(range(len(pairs))) - dominated
    assert [pairs[one] for one in found] == sorted(pairs[one] for one in found)

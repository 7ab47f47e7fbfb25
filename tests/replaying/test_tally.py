"""What a run says of itself while it runs."""

import pytest

from blendplan.replaying.tally import Tally


def test_the_pace_so_far_gives_the_time_left() -> None:
    tally = Tally(10, {"prompt_tokens": 900, "output_tokens": 100, "makespan_s": 80.0})
    assert tally.time_left_s is None
    tally.elapsed_s = 20.0
    tally.add(1, 180, 90, 20)
    # A fifth of the tokens took 20 s.
    assert tally.time_left_s == pytest.approx(80.0)
    assert tally.throughput_tokens_per_s == pytest.approx(10.0)
    assert tally.cached_share == 0.5
    assert tally.line() == "10 tokens/s, 50% cached, 0 preempted, 80 s left (plan 80 s in all)"


def test_what_was_done_before_is_not_counted_again() -> None:
    tally = Tally(10, {"prompt_tokens": 900, "output_tokens": 100}, already_done=5)
    tally.elapsed_s = 10.0
    tally.add(1, 240, 0, 10)
    assert tally.left == 4
    assert tally.time_left_s == pytest.approx(10.0)


def test_the_end_is_the_end() -> None:
    tally = Tally(2, {"prompt_tokens": 900, "output_tokens": 100}, failed=1)
    tally.elapsed_s = 1.0
    tally.add(1, 10, 0, 1)
    assert tally.left == 0
    assert tally.time_left_s == 0.0
    assert "1 failed" in tally.line()

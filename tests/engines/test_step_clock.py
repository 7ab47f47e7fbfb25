"""What the steps of an engine compute, as its scheduler tells it."""

import pytest

from blendplan.cost.reach import ALL_TOKENS, Reach
from blendplan.engines.step_clock import ScheduledWork, StepClock
from tests.oracles.layer_kinds import REACHES
from tests.oracles.lockstep import seen


@pytest.mark.parametrize("reach", REACHES)
def test_work_is_counted_by_the_reach_of_layers(reach: Reach) -> None:
    work = ScheduledWork(reach)
    work.prefill(5, 4)
    work.prefill(0, 3)
    work.decode([9, 2, 30])
    pairs = sum(seen(reach, "pair_share", context) for context in (6, 7, 8, 9, 1, 2, 3))
    assert (work.prefill_tokens, work.prefill_sequences, work.decode_tokens) == (7, 2, 3)
    assert work.prefill_pairs == pytest.approx(pairs)
    read = sum(seen(reach, "read_share", context) for context in (9, 2, 30))
    assert work.kv_tokens_read == pytest.approx(read)


def test_a_step_is_told_with_its_own_work() -> None:
    """Steps end in the order in which they were scheduled."""
    clock = StepClock()
    for contexts in ([4, 5], [7]):
        work = ScheduledWork(ALL_TOKENS)
        work.decode(contexts)
        clock.scheduled(work)
    first = clock.ended(kv_tokens_used=16, waiting=1)
    second = clock.ended(kv_tokens_used=32, waiting=0, running=5)
    assert (first.decode_tokens, first.kv_tokens_read, first.running) == (2, 9, 2)
    assert (second.decode_tokens, second.kv_tokens_read, second.running) == (1, 7, 5)
    assert first.time_s >= 0.0
    assert second.time_s >= 0.0

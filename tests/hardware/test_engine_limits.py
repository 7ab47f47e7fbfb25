"""Limits of an engine: what is refused, and their way through the metadata of a plan."""

import pytest

from blendplan.errors import BlendplanError
from blendplan.hardware.engine_limits import LIMITS, NUMBERS, EngineLimits


def test_metadata_hold_all_limits_among_other_things() -> None:
    limits = EngineLimits(4096, 12, 128, 32)
    stored = limits.as_metadata()
    assert tuple(stored) == LIMITS
    assert EngineLimits.from_metadata({**stored, "kv_dtype": "fp8"}) == limits
    # Plans that were made before there was the choice are for synchronous scheduling.
    del stored["async_scheduling"]
    assert EngineLimits.from_metadata(stored) == limits


def test_scheduling_is_asynchronous_or_not() -> None:
    with pytest.raises(BlendplanError, match="async_scheduling is 1; give True or False"):
        EngineLimits(4096, async_scheduling=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NUMBERS)
def test_every_limit_is_at_least_one(name: str) -> None:
    with pytest.raises(BlendplanError, match=f"{name} is 0; it must be at least 1"):
        EngineLimits(**{"kv_tokens": 64, name: 0})  # type: ignore[arg-type]


def test_the_cache_holds_a_block() -> None:
    assert EngineLimits(47, block_size=16).kv_blocks == 2
    with pytest.raises(BlendplanError, match="kv_tokens is 15, less than one block of 16"):
        EngineLimits(15)

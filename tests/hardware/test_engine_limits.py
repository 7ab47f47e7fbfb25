"""Limits of an engine: what is refused, and their way through the metadata of a plan."""

import pytest

from blendplan.errors import BlendplanError
from blendplan.hardware.engine_limits import LIMITS, EngineLimits


def test_metadata_hold_all_limits_among_other_things() -> None:
    limits = EngineLimits(4096, 12, 128, 32)
    stored = limits.as_metadata()
    assert tuple(stored) == LIMITS
    assert EngineLimits.from_metadata({**stored, "kv_dtype": "fp8"}) == limits


@pytest.mark.parametrize("name", LIMITS)
def test_every_limit_is_at_least_one(name: str) -> None:
    with pytest.raises(BlendplanError, match=f"{name} is 0; it must be at least 1"):
        EngineLimits(**{**EngineLimits(64).as_metadata(), name: 0})


def test_the_cache_holds_a_block() -> None:
    assert EngineLimits(47, block_size=16).kv_blocks == 2
    with pytest.raises(BlendplanError, match="kv_tokens is 15, less than one block of 16"):
        EngineLimits(15)

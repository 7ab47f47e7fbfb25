"""A calibration beside an earlier one of the same GPU."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from blendplan.cost.calibration.beside import beside

OLD: dict[str, Any] = {
    "source": "theirs",
    "gemm": {"bf16": {"launch_s": 1.0}, "fp8": {"launch_s": 2.0}},
    "decode_attention": {"bf16": {"engine": {"launch_s": 3.0}}},
    "default": {"decode_attention": {"bf16": "engine"}},
}
NEW: dict[str, Any] = {
    "source": "ours",
    "gemm": {"bf16": {"launch_s": 4.0}},
    "decode_attention": {"bf16": {"own": {"launch_s": 5.0}}},
    "all_reduce": {"nccl_graph": {"2": [[1.0, 2.0, 3.0]]}},
    "default": {"decode_attention": {"bf16": "own"}, "all_reduce": "nccl_graph"},
}
TABLES = st.recursive(
    st.floats(0, 1), lambda inner: st.dictionaries(st.sampled_from("abcd"), inner, max_size=3)
)
FITTED = st.dictionaries(st.sampled_from("abcd"), TABLES, max_size=3)


def test_new_fits_and_what_they_lack() -> None:
    merged = beside(NEW, OLD)
    assert merged["gemm"] == {"bf16": {"launch_s": 4.0}, "fp8": {"launch_s": 2.0}}
    assert set(merged["decode_attention"]["bf16"]) == {"engine", "own"}
    assert merged["default"] == {
        "decode_attention": {"bf16": "engine"},
        "all_reduce": "nccl_graph",
    }
    assert merged["source"] == "ours; what that lacks: theirs"


def test_the_same_again_changes_nothing() -> None:
    merged = beside(NEW, OLD)
    assert beside(NEW, merged) == merged
    assert beside(OLD, OLD) == OLD


@given(FITTED, FITTED)
def test_nothing_is_lost_and_nothing_is_made_up(new: dict[str, Any], old: dict[str, Any]) -> None:
    merged = beside(new, old)
    assert set(merged) == set(new) | set(old)
    assert beside(new, {}) == new
    assert beside({}, old) == old
    for name in new:
        if not isinstance(new[name], dict):
            assert merged[name] == new[name]
    for name in set(old) - set(new):
        assert merged[name] == old[name]

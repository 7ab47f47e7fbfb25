"""Profiles: whatever a GPU holds is still there after it was written and read."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from blendplan.errors import BlendplanError
from blendplan.hardware.gpu import GpuSpec
from blendplan.hardware.lookup import gpu_from_text, gpu_spec
from blendplan.hardware.profile import profile_text, write_profile

# Every plane of Unicode; surrogates alone are no characters and have no place in TOML.
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
# 0 where a profile does not state a number.
FLOP = st.just(0.0) | st.floats(1e9, 1e18)
RATE = st.just(0.0) | st.floats(1e9, 1e14)
BYTES = st.just(0) | st.integers(10**8, 10**11)
# TOML knows not-a-number, which equals nothing.
VALUES = st.recursive(
    TEXT | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
GPUS = st.builds(
    GpuSpec,
    name=TEXT,
    flop_per_s=FLOP,
    bandwidth_bytes_per_s=RATE,
    memory_bytes=BYTES,
    link_bytes_per_s=RATE,
    sm_count=st.integers(0, 10**5),
    l2_bytes=BYTES,
    fp8_flop_per_s=FLOP,
    source=TEXT,
    fitted=st.dictionaries(TEXT, VALUES, max_size=4),
)


def mine(name: str = "mine", fitted: Mapping[str, Any] | None = None) -> GpuSpec:
    return GpuSpec(name, 1e14, 1e12, 10**10, 1e10, 1, 10**6, fitted=fitted or {})


@given(GPUS)
def test_any_gpu_survives_being_written_down(gpu: GpuSpec) -> None:
    text = profile_text(gpu)
    assert gpu_from_text(text, "text", "other") == gpu
    # A number keeps its type, which equality does not tell.
    found = tomllib.loads(text)["fitted"]
    assert json.dumps(found, sort_keys=True) == json.dumps(gpu.fitted, sort_keys=True)


@given(TEXT)
@example("\U000e0001\U0010ffff\ue000\u0085\u2028\x00\x7f\r\n\t\"\\'")
def test_any_text_survives_the_file(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("profile") / "mine.toml"
    gpu = mine(text, {text: {text: [text]}})
    write_profile(gpu, path)
    assert gpu_spec(path) == gpu


def test_awkward_values_survive() -> None:
    fitted = {
        "a b": 'say "hi"\\\n',
        "n": [[1.0, float("inf")]],
        "yes": True,
        "t": {"x.y": {"z": 1}},
    }
    assert tomllib.loads(profile_text(mine(fitted=fitted)))["fitted"] == fitted


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    with pytest.raises(BlendplanError, match=r"GPU 'gpu-\\udcff': '\\udcff' is not a character"):
        write_profile(mine("gpu-\udcff"), path)
    assert not path.exists()

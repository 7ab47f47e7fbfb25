"""What the KV cache takes, by kinds of layers."""

import pytest

from blendplan.hardware.kv_layers import kv_layers
from blendplan.hardware.lookup import model_spec
from blendplan.report.kv_groups import kv_groups, kv_rows


def test_layers_that_keep_the_same_are_one_row() -> None:
    groups = kv_groups(kv_layers(model_spec("gemma-3-27b")))
    each = 2 * 16 * 128 * 2
    assert {(g["kind"], g["layers"], g["reach_tokens"], g["bytes_per_token"]) for g in groups} == {
        ("sliding", 52, 1024, 52 * each),
        ("full", 10, 0, 10 * each),
    }
    rows = kv_rows(groups)
    assert rows["KV, a window"] == (
        "425,984 bytes a token, of the last 1,024 tokens, in 52 layers on a GPU"
    )
    assert rows["KV, all tokens"] == "81,920 bytes a token, in 10 layers on a GPU"


@pytest.mark.parametrize("tp", [1, 2])
def test_states_are_told_by_the_request(tp: int) -> None:
    groups = kv_groups(kv_layers(model_spec("qwen-3-next-80b-a3b"), tp=tp))
    state, full = sorted(groups, key=lambda group: str(group["kind"]), reverse=True)
    assert (state["kind"], state["layers"], state["bytes_per_token"]) == ("state", 36, 0)
    assert (full["kind"], full["layers"], full["state_bytes"]) == ("full", 12, 0)
    assert "a request, in 36 layers" in kv_rows(groups)["KV, a state"]


def test_windows_of_different_lengths_are_all_told() -> None:
    rows = kv_rows(kv_groups(kv_layers(model_spec("deepseek-v4-flash"))))
    assert "of the last 128 tokens" in rows["KV, a window"]
    assert "of the last 8 tokens" in rows["KV, a window"]

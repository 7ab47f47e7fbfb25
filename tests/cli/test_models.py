"""``blendplan models`` and ``gpus``: what is understood of a model, and the lists."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from blendplan.hardware.lookup import model_spec
from blendplan.planfile.plan import Plan
from blendplan.planfile.rerun import machine_of
from tests.cli.cli_runs import answer, error_line, run, write_job
from tests.hardware.hf_config.configs import config

HYBRID = config(
    model_type="qwen3_next",
    linear_num_value_heads=4,
    linear_num_key_heads=2,
    linear_key_head_dim=8,
    linear_value_head_dim=8,
    kv_twist=3,
)


def folder(path: Path, values: object) -> Path:
    (path / "config.json").write_text(json.dumps(values))
    return path


def test_what_is_understood_of_a_folder(tmp_path: Path) -> None:
    found = answer("models", folder(tmp_path, HYBRID))
    assert answer("models", tmp_path / "config.json") == found | {"name": found["name"]}
    assert found["layers"] == {"gated_delta": 6, "full": 2}
    assert sorted(found["kv_bytes"], key=int) == ["1000", "10000", "100000"]
    assert found["kv_bytes"]["1000"] < found["kv_bytes"]["10000"] < found["kv_bytes"]["100000"]
    assert found["context_tokens"] == 4096
    assert found["active_parameters"] <= found["parameters"]
    assert found["weights_bytes"] == 2 * found["parameters"]
    assert any("not understood: kv_twist" in remark for remark in found["remarks"])
    shown = run("models", tmp_path).stdout
    for text in (
        "6   gated_delta",
        "2   full",
        "4:2 heads of 16",
        "remark: not understood",
        "groups",
    ):
        assert text in shown


def test_a_plan_says_what_was_assumed_of_its_model(tmp_path: Path) -> None:
    job = write_job(tmp_path / "requests.jsonl", 6)
    named = tmp_path / "llama-3.1-8b"  # a name that the catalogue has, with another shape
    named.mkdir()
    plan = tmp_path / "plan.arrow"
    words = ("plan", job, "--gpu", "l4", "--model", folder(named, HYBRID), "-o", plan)
    result = run(*words, "--max-model-len", "4096", "--effort", "0")
    assert result.exit_code == 0, result.stderr
    assert "model llama-3.1-8b: not understood: kv_twist" in result.stderr
    again = machine_of(Plan.read(plan)).model
    assert again == replace(model_spec(named), name="llama-3.1-8b")


def test_a_model_by_name() -> None:
    found = answer("models", "openai/gpt-oss-20b")
    assert found["layers"] == {"sliding": 12, "full": 12}
    assert found["parameters"] == pytest.approx(20.9e9, rel=0.01)
    assert "12 layers" in run("models", "gpt-oss-20b").stdout


def test_patterns_and_order() -> None:
    names = [model["name"] for model in answer("models", "--grep", "^gpt-oss")["models"]]
    assert names == ["gpt-oss-20b", "gpt-oss-120b"]
    by_size = answer("models", "--grep", "gpt-oss", "--sort", "parameters")["models"]
    assert [model["name"] for model in by_size] == names[::-1]
    states = answer("models", "--grep", "gated_delta")["models"]
    assert states
    assert all("gated_delta" in model["layers"] for model in states)
    kept = [m["kv_bytes"]["10000"] for m in answer("models", "--sort", "kv")["models"]]
    assert kept == sorted(kept, reverse=True)
    experts = answer("models", "--grep", "moe")["models"]
    assert all(model["experts"] or "moe" in model["source"] for model in experts)
    found = {model["name"] for model in experts}
    assert {"mixtral-8x7b", "gpt-oss-20b", "deepseek-v3"} <= found
    assert "llama-3.1-8b" not in found
    gpus = answer("gpus", "--grep", "b200|b300", "--sort", "name")["gpus"]
    assert [gpu["name"] for gpu in gpus] == ["b200", "b300", "gb200", "gb300"]
    assert answer("gpus", "--grep", "no such thing")["gpus"] == []
    for listed in ("gpus", "models"):
        none = run(listed, "--grep", "no such thing")
        assert none.exit_code == 0
        assert none.stdout == ""
        assert none.stderr.startswith(f"no {listed} match --grep 'no such thing'")


def test_help_says_what_is_searched() -> None:
    assert "layers" in run("models", "--help").stdout
    assert "layers" not in run("gpus", "--help").stdout


def test_small_models_have_digits() -> None:
    shown = run("models", "--grep", "^qwen-(2.5-0.5|3-8)b").stdout
    assert "494 M" in shown
    assert "8.2 B" in shown


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "a Git LFS pointer"),
        ("\n<!DOCTYPE html>\n<html><body>Sign in</body></html>", "a web page (HTML), not JSON"),
        ('{"model_type": "llama", "hidden_size": 1000000000000}', "from 0 to 999,999,999"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(tmp_path: Path, text: str, line: str) -> None:
    (tmp_path / "config.json").write_text(text)
    assert line in error_line(run("models", tmp_path))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["models", "--grep", "("], "is no regular expression"),
        (["gpus", "--sort", "memry"], "did you mean 'memory'"),
        (["models", "gpt-oss-21b"], "did you mean 'gpt-oss-2"),
        (["models", "none.json"], "No such file"),
        (["models", "cfg/nonexistent"], "there is no file or folder 'cfg/nonexistent'"),
        (["models", ""], "the model is empty"),
        (["plan", "none.jsonl", "--gpu", "h101", "-o", "p"], "did you mean 'h100-80g'"),
    ],
)
def test_what_cannot_be_found_is_one_line(words: list[str], line: str) -> None:
    assert line in error_line(run(*words))

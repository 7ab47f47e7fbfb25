"""``blendplan quote``: the command that it prints, its numbers, and what it refuses."""

import json
import shlex
from pathlib import Path

import pytest

from blendplan.hardware.lookup import gpu_names
from tests.cli.cli_runs import answer, error_line, run, write_job

MACHINES = ("--gpu", "l4,a10g", "--replicas", "1,2", "--effort", "0", "--processes", "1")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_job(tmp_path / "requests.jsonl")
    write_job(tmp_path / "un known.jsonl", known_lengths=False)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "options"),
    [
        ("requests.jsonl", ()),
        ("un known.jsonl", ("--seed", "3", "--no-replan", "--policy", "dfs")),
        (
            "requests.jsonl",
            ("--policy", "dfs", "--kv-dtype", "fp8,auto", "--async-scheduling", "--overlap", "2"),
        ),
        (
            "requests.jsonl",
            ("--engine", "vllm", "--engine-arg", "dtype=half", "--engine-arg", "max_logprobs=5"),
        ),
        ("requests.jsonl", ("--on-error", "skip", "--max-model-len", "500")),
    ],
)
def test_the_printed_command_predicts_the_same(
    folder: Path, file: str, options: tuple[str, ...]
) -> None:
    found = answer("quote", file, *MACHINES, *options, "--price", "l4=0.8", "--price", "a10g=1")
    program, *words = shlex.split(found["plan_command"])
    assert program == "blendplan"
    made = answer(*words)
    best = found["offers"][found["winner"]]
    assert made["predicted"]["makespan_s"] == best["makespan_s"]
    assert made["predicted"]["makespan_quantiles_s"] == best["makespan_quantiles_s"]
    assert made["bound_s"] == pytest.approx(best["bound_s"])
    assert made["gpu"] == best["gpu"]


def test_costs_add_up(folder: Path) -> None:
    (folder / "prices.toml").write_text('currency = "EUR"\nl4 = 9\na10g = 1.5\n')
    found = answer(
        *("quote", "requests.jsonl", *MACHINES, "--prices", "prices.toml", "--price", "L4=0.7"),
    )
    assert found["prices"] == {"l4": 0.7, "a10g": 1.5}
    assert found["currency"] == "EUR"
    assert len(found["offers"]) == 4
    for offer in found["offers"]:
        assert offer["cost"] == pytest.approx(found["prices"][offer["gpu"]] * offer["gpu_hours"])
        each = offer["cost_per_million_tokens"]
        tokens_in, tokens_out = offer["prompt_tokens"], offer["output_tokens"]
        total = each["in"] * tokens_in + each["out"] * tokens_out
        assert total / 1e6 == pytest.approx(offer["cost"])
        assert each["all"] * (tokens_in + tokens_out) / 1e6 == pytest.approx(offer["cost"])
    front = [offer for offer in found["offers"] if offer["on_front"]]
    assert min(found["offers"], key=lambda one: one["makespan_s"]) in front
    assert found["offers"][found["winner"]]["on_front"]


def test_tables_show_every_offer_and_what_does_not_fit(folder: Path) -> None:
    words = ("--gpu", "l4,a100-80g", "--model", "llama-3.1-8b,llama-3.1-70b", "--effort", "0")
    result = run("quote", "requests.jsonl", *words, "--price", "l4=0.7", "--processes", "1")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count("1 x l4") == 4  # table, front, sentence, what does not fit
    assert "every GPU lacks 113.1 GiB" in result.stdout
    assert "no price is given for a100-80g" in result.stderr
    last = result.stdout.splitlines()[-1]
    assert last == "blendplan plan requests.jsonl --gpu l4 --effort 0 -o plan.arrow"


def test_a_limit_is_met_or_the_nearest_is_named(folder: Path) -> None:
    found = answer("quote", "requests.jsonl", *MACHINES)
    fastest = min(offer["makespan_s"] for offer in found["offers"])
    for seconds, met in ((2 * fastest, True), (0.5 * fastest, False)):
        result = run("quote", "requests.jsonl", *MACHINES, "--within", f"{seconds:.3f}s")
        assert result.exit_code == 0
        assert ("None is done within" in result.stdout) is not met
        assert ("blendplan plan" in result.stdout) is met
    limited = answer("quote", "requests.jsonl", *MACHINES, "--within", "1h30min", "--chance", "0.5")
    assert (limited["within_s"], limited["chance"]) == (5400.0, 0.5)
    assert all(offer["in_time"] and offer["chance"] == 1.0 for offer in limited["offers"])


def test_requests_that_no_machine_takes_are_left_out_and_said(folder: Path) -> None:
    lines = [{"prompt_token_ids": [1] * 9000, "output_tokens": 4}]
    with (folder / "requests.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    words = ("quote", "requests.jsonl", *MACHINES, "--max-model-len", "4096")
    assert "model takes 4,096" in error_line(run(*words))
    assert answer(*words, "--on-error", "skip")["rejected"] == 1


def test_models_with_other_tokenizers_are_not_quoted_together(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    (folder / "model" / "tokenizer.json").write_text('{"model": {"type": "BPE", "vocab": {}}}')
    line = error_line(
        run("quote", "requests.jsonl", "--gpu", "l4", "--model", "model,llama-3.1-8b")
    )
    assert "different tokens" in line


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--gpu", "l4,l5"), 2, "unknown GPU 'l5'; did you mean 'l4'"),
        (("--gpu", "l4,"), 2, "has nothing beside a comma"),
        (("--gpu", "l4", "--tp", "1,two"), 2, "'two' is not a valid integer"),
        (("--gpu", "l4", "--tp", "0"), 2, "0 is not in the range"),
        (("--gpu", "l4", "--kv-dtype", "auto,fp7"), 2, "unknown KV-cache type 'fp7'"),
        (("--gpu", "l4", "--within", "0h"), 2, "no time at all"),
        (("--gpu", "l4", "--within", "-2h"), 2, "in the past"),
        (("--gpu", "l4", "--within", "soon"), 2, "no length of time; give one such as 6h"),
        (("--gpu", "l4", "--within", "2020-01-01"), 2, "no length of time"),
        (("--gpu", "l4", "--within", "9999999d"), 2, "longer than a century"),
        (("--gpu", "l4", "--within", "1h", "--chance", "0"), 2, "0"),
        (("--gpu", "l4", "--price", "l4"), 2, "is not GPU=PRICE"),
        (("--gpu", "l4", "--price", "l4=cheap"), 2, "is not GPU=PRICE"),
        (("--gpu", "l4", "--price", "l4=1", "--price", "l4=2"), 2, "two prices for l4"),
        (("--gpu", "l4", "--price", "l44=1"), 1, "price for an unknown GPU 'l44'; did you mean"),
        (("--gpu", "l4", "--price", "xyzzy=1"), 1, f"choose from {len(gpu_names())} that are"),
        (("--gpu", "l4", "--price", "h200=1"), 1, "which --gpu does not name"),
        (("--gpu", "l4", "--price", "l4=-1"), 1, "give a number above 0"),
        (("--gpu", "l4", "--prices", "none.toml"), 1, "No such file"),
        (("--gpu", "l4", "--model", "llama-3.1-70b"), 1, "none of the 1 combinations fits"),
        (("--gpu", "l4", "--html", "no/where.html"), 1, "no/where.html"),
    ],
)
def test_bad_input_gets_one_line(
    folder: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    result = run("quote", "requests.jsonl", *words)
    assert result.exit_code == code
    line = error_line(result) if code == 1 else result.stderr
    assert said in line, line


def test_a_report_has_the_pictures_and_the_command(folder: Path) -> None:
    pytest.importorskip("matplotlib")
    words = ("quote", "requests.jsonl", *MACHINES, "--policy", "dfs")
    for name, more in (
        ("cost", ("--price", "l4=0.8", "--price", "a10g=1")),
        ("hours", ()),
        ("late", ("--within", "1s")),
    ):
        found = answer(*words, *more, "--html", f"{name}.html")
        page = (folder / f"{name}.html").read_text()
        assert page.count("<svg") == (1 if name == "late" else 3)
        assert page.count("<tr") == 1 + len(found["offers"])
        assert (found["plan_command"] or "None is done within 1.00 s") in page
        for outside in ("<script", "<link", "src=", "NaN"):
            assert outside not in page
        again = folder / "again.html"
        answer(*words, *more, "--html", again)
        assert again.read_text() == page

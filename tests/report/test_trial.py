"""What a trial is said to have found, from figures that are given."""

import copy
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from blendplan.proving.trial import trial
from blendplan.report.trial import answer, comparison, prices, sentences, tried, whole
from blendplan.report.trial_page import trial_page
from tests.planfile.test_rerun import job


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return trial(
        job(3, 60),
        "sim",
        tmp_path_factory.mktemp("trial") / "t",
        gpu="l4",
        kv_tokens=1024,
        max_num_seqs=16,
        max_num_batched_tokens=256,
        effort=0,
        most=30,
    )


def changed(found: dict[str, Any], part: str, **changes: Any) -> dict[str, Any]:
    values = copy.deepcopy(found)
    values[part] |= changes
    return values


@pytest.mark.parametrize(
    ("gains", "repeats", "words"),
    [
        ((0.1, 0.1, 0.1), 1, "yes: +10.0 % tokens/s"),
        ((0.1, 0.05, 0.12), 3, "yes: +10.0 % tokens/s, +5.0 % to +12.0 %"),
        ((-0.03, -0.03, -0.03), 1, "no: -3.0 % tokens/s"),
        ((0.01, 0.01, 0.01), 1, "no difference here: +1.0 % tokens/s"),
        ((0.03, -0.01, 0.05), 3, "not clear: +3.0 % tokens/s, -1.0 % to +5.0 %"),
    ],
)
def test_whether_it_helped(
    found: dict[str, Any], gains: tuple[float, float, float], repeats: int, words: str
) -> None:
    middle, least, most = gains
    given = {"throughput": middle, "least": least, "most": most, "repeats": repeats}
    values = changed(found, "gain", **given)
    assert answer(values | {"order": "blend"}) == words
    same = answer(values | {"order": "fcfs"})
    assert same == f"not by this plan, which is input order: {words.partition(': ')[2]}"


def test_a_gain_that_no_step_explains_is_not_clear(found: dict[str, Any]) -> None:
    """The planned steps took a third less time than those of input order that are alike."""
    values = changed(found, "gain", throughput=0.45, makespan=0.45, repeats=1) | {"order": "blend"}
    values = copy.deepcopy(values)
    values["prices"]["fitted"]["input"]["total_error"] = -0.15
    values["prices"]["fitted"]["planned"]["total_error"] = 0.2
    by_steps = "+2.7 %"  # 1.45 * 0.85 / 1.2
    assert answer(values) == f"not clear: +45.0 % tokens/s, of which the steps explain {by_steps}"
    assert any("--repeats 3 would average" in line for line in sentences(values))
    values["prices"]["fitted"]["planned"]["total_error"] = -0.15
    assert answer(values).startswith("yes: +45.0 %")
    values["prices"] = None
    assert answer(values | {"no_prices": "3 steps"}).startswith("yes: +45.0 %")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (0.0, "right: steps took the time that was priced, a"),
        (-0.1, "right: steps took 11.1 % more time than priced, a"),
        (-0.75, "wrong: steps took 4.00 times the time that was priced, a"),
        (0.25, "wrong: steps took 20.0 % less time than priced, a"),
    ],
)
def test_whether_prices_were_right(found: dict[str, Any], error: float, words: str) -> None:
    values = copy.deepcopy(found)
    values["prices"]["given"]["planned"] |= {"total_error": error, "median_error": 0.02}
    assert prices(values).startswith(words)
    assert prices(values).endswith("off by 2.0 % at the median")
    few = found | {"prices": None, "no_prices": "3 steps"}
    assert prices(few) == "not known: 3 steps"
    assert trial_page(few).count("<svg ") == 1


def test_what_to_expect_of_all(found: dict[str, Any]) -> None:
    values = copy.deepcopy(found)
    policies = values["whole"]["policies"]
    policies["blend"]["makespan_s"] = 7200.0
    policies["fcfs"]["gain"], policies["dfs"]["gain"] = 0.2, 0.01
    expected = "simulated: +20.0 % over input order and +1.0 % over depth-first order"
    assert whole(values) == f"2 h 00 min by the fitted prices, {expected}"
    assert "by the plan's prices" in whole(values | {"profile": None})
    values["gain"]["throughput"] = 0.3
    assert "gains +30.0 %, and all requests are expected to gain +20.0 %" in sentences(values)[-1]
    values["gain"]["throughput"], values["order"] = 0.21, "blend"
    assert sentences(values) == values["remarks"]


def test_what_a_plan_by_wrong_prices_is_worth(found: dict[str, Any]) -> None:
    values = copy.deepcopy(found)
    values["prices"]["given"]["planned"]["total_error"] = -0.4
    values["order"] = "fcfs"
    said = "\n".join(sentences(values))
    assert "nothing beats input order: both ways ran in the same one" in said
    chosen = "\n".join(sentences(values | {"policy": "fcfs"}))
    assert "the policy fcfs is input order: both ways ran in the same one" in chosen
    assert "nothing beats" not in chosen
    assert "with --gpu profile.toml of this folder" in said
    values["prices"]["given"]["planned"]["total_error"] = 0.1
    values["order"] = "blend"
    said = "\n".join(sentences(values))
    assert "the same one" not in said
    assert "--gpu" not in said


def test_what_an_engine_does_not_tell(found: dict[str, Any]) -> None:
    values = copy.deepcopy(found)
    values["gain"]["input"]["preemptions"] = None
    rows = {row[0]: row[1:] for row in comparison(values)}
    assert rows["preemptions"][0] == "not told"
    assert rows["makespan"] == rows["makespan, predicted"]


def test_words_of_names_are_safe_in_the_page(found: dict[str, Any]) -> None:
    page = trial_page(found | {"model": "<script>", "remarks": ["a < b"]})
    assert "<script>" not in page
    assert "a &lt; b" in page


def test_the_answer_for_a_terminal(found: dict[str, Any], tmp_path: Path) -> None:
    from rich.console import Console

    console = Console(width=120, file=StringIO())
    with console.capture() as told:
        console.print(tried(found | {"folder": str(tmp_path)}))
    text = told.get()
    assert answer(found) in text
    assert "30 of 60 requests, sim (simulated), llama-3.1-8b on l4" in text

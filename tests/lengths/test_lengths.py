"""What is predicted of output lengths, and by which rule."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blendplan.errors import BlendplanError
from blendplan.lengths.nearest_subtree import NearestSubtreePredictor
from blendplan.lengths.predict import predict_lengths
from blendplan.lengths.predicted import OUTCOMES, Lengths
from blendplan.lengths.prior import PriorPredictor
from blendplan.requests.columns import Requests
from blendplan.requests.in_memory import requests_from_lists
from blendplan.requests.read import read_requests
from blendplan.tree.build import build_tree
from blendplan.tree.prefix_tree import PrefixTree
from tests.oracles.tree import PROMPTS


def with_tree(requests: Requests) -> tuple[Requests, PrefixTree]:
    return requests, build_tree(requests)


def sources(lengths: Lengths) -> list[str]:
    """What each length rests on."""
    return ["known" if known else lengths.source for known in lengths.known]


def write_lines(path: Path, lines: list[object]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def batch_line(custom_id: str, output_tokens: int, prompt_tokens: int = 10) -> dict[str, object]:
    """A line of an OpenAI batch output file."""
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": output_tokens}
    return {
        "id": "batch_req_1",
        "custom_id": custom_id,
        "response": {"status_code": 200, "body": {"usage": usage}},
        "error": None,
    }


# Known lengths and caps


def test_stated_lengths_win_and_caps_hold() -> None:
    requests, tree = with_tree(
        requests_from_lists(
            [[1], [2], [3], [4]],
            output_tokens=[7, 900, None, None],
            max_tokens=[None, 100, 5, None],
        )
    )
    lengths = predict_lengths(requests, tree)
    assert lengths.mean[:2].tolist() == lengths.p50[:2].tolist() == [7, 100]
    assert lengths.p90[:2].tolist() == [7, 100]
    assert sources(lengths) == ["known", "known", "prior", "prior"]
    assert 4 < lengths.mean[2] < lengths.p50[2] == lengths.p90[2] == 5
    assert lengths.note.startswith("output lengths of 2 of 4 requests are a guess")
    assert "1 % sample" in lengths.note


def test_known_everywhere_needs_no_note() -> None:
    requests, tree = with_tree(requests_from_lists([[1], [2]], output_tokens=[3, 4]))
    for method in ("auto", "known", "prior"):
        assert predict_lengths(requests, tree, method).note == ""


def test_known_fails_when_one_is_not() -> None:
    requests, tree = with_tree(
        requests_from_lists([[1], [2]], output_tokens=[3, None], ids=["a", "b"])
    )
    with pytest.raises(BlendplanError, match=r"1 of 2 requests state no output_tokens.*'b'"):
        predict_lengths(requests, tree, "known")


@pytest.mark.parametrize("method", ["samples:x", "sample", "sample:", "auto:x", "best", ""])
def test_unknown_methods_are_named(method: str) -> None:
    requests, tree = with_tree(requests_from_lists([[1]]))
    with pytest.raises(BlendplanError, match="give auto, known, prior, sample:FILE, history:FILE"):
        predict_lengths(requests, tree, method)


# The prior


@pytest.mark.parametrize("cap", [-1, 1, 2, 50, 200, 1000, 100_000])
def test_prior_is_a_lognormal_cut_off_at_the_cap(cap: int) -> None:
    prior = PriorPredictor(median=120.0, sigma=0.9)
    drawn = 120.0 * np.exp(0.9 * np.random.default_rng(1).standard_normal(200_000))
    outputs = np.minimum(drawn, cap) if cap > 0 else drawn
    outcomes, p50, p90 = (column[0] for column in prior.cut_off(np.array([cap], np.int32)))
    tenths = np.sort(outputs).reshape(OUTCOMES, -1).mean(axis=1)
    assert outcomes == pytest.approx(tenths, rel=0.01)
    assert p50 == pytest.approx(np.quantile(outputs, 0.5), rel=0.01)
    assert p90 == pytest.approx(np.quantile(outputs, 0.9), rel=0.01)


# Predicting from a sample


@settings(max_examples=80)
@given(PROMPTS, st.integers(1, 3), st.integers(1, 6), st.data())
def test_sample_predicts_by_the_nearest_subtree_that_has_any(
    prompts: list[list[int]], mean_samples: int, spread_samples: int, data: st.DataObject
) -> None:
    n = len(prompts)
    _, tree = with_tree(requests_from_lists(prompts))
    rows = data.draw(st.lists(st.integers(0, n - 1), min_size=1, unique=True))
    outputs = data.draw(st.lists(st.integers(1, 50), min_size=len(rows), max_size=len(rows)))
    predictor = NearestSubtreePredictor(mean_samples, spread_samples)
    predicted = predictor.fit(tree, np.array(rows), np.array(outputs, np.int32)).predict(
        tree.node_of
    )

    def pool(row: int, least: int) -> list[int]:
        """Sampled outputs of the longest prefix of a prompt that enough samples begin with."""
        for length in range(len(prompts[row]), 0, -1):
            prefix = prompts[row][:length]
            below = [
                output
                for other, output in zip(rows, outputs, strict=True)
                if prompts[other][:length] == prefix
            ]
            if len(below) >= least:
                return sorted(below)
        return sorted(outputs)

    for row in range(n):
        center = pool(row, mean_samples)
        spread = pool(row, max(mean_samples, spread_samples))
        mean = sum(center) / len(center)
        scale = mean / (sum(spread) / len(spread))
        assert predicted.mean[row] == pytest.approx(mean)
        for column, q in ((predicted.p50, 0.5), (predicted.p90, 0.9)):
            wanted = next(x for i, x in enumerate(spread, 1) if i >= q * len(spread) - 1e-9)
            assert column[row] == pytest.approx(wanted * scale)


def test_sampled_requests_get_the_length_they_had(tmp_path: Path) -> None:
    prompts = [[1, 1], [1, 2], [1, 3], [2, 1], [2, 2]]
    requests, tree = with_tree(
        requests_from_lists(prompts, max_tokens=[None, None, 15, None, None], ids=list("abcde"))
    )
    file = write_lines(tmp_path / "r.jsonl", [batch_line("a", 10), batch_line("b", 30)])
    lengths = predict_lengths(requests, tree, f"sample:{file}")
    assert lengths.mean[:2].tolist() == lengths.p90[:2].tolist() == [10, 30]
    # The cap is on each length that may come, not on their mean.
    assert lengths.mean[2:] == pytest.approx([12.5, 20, 20], rel=0.3)
    assert lengths.p90[2] <= 15
    assert sources(lengths) == ["sample"] * 5
    assert lengths.note == ""


def test_a_result_with_several_answers_teaches_the_length_of_one(tmp_path: Path) -> None:
    requests, tree = with_tree(requests_from_lists([[1], [1], [1]], ids=["a", "b", "c"]))
    eight, told = batch_line("a", 800), batch_line("b", 999)
    # Usage counts all answers; where each has its tokens, these are counted.
    eight["response"]["body"]["choices"] = [{"index": i} for i in range(8)]  # type: ignore[index]
    told["response"]["body"]["choices"] = [  # type: ignore[index]
        {"index": 0, "token_ids": [1] * 30},
        {"index": 1, "token_ids": [1] * 90},
    ]
    file = write_lines(tmp_path / "r.jsonl", [eight, told])
    for method, near in (("nearest", 1e-6), ("history", 0.1)):
        lengths = predict_lengths(requests, tree, f"{method}:{file}")
        assert lengths.mean[2] == pytest.approx(80, rel=near)
    sampled = predict_lengths(requests, tree, f"sample:{file}")
    assert sampled.mean.tolist()[:2] == [100, 60]


# Results files


def test_results_that_cannot_count_are_counted(tmp_path: Path) -> None:
    failed = {"custom_id": "c", "response": None, "error": {"code": "x", "message": "y"}}
    refused = {"custom_id": "c", "response": {"status_code": 500, "body": {}}, "error": None}
    lines = [batch_line("a", 10), failed, refused, {"id": "zz", "output_tokens": 99}]
    lines += [{"id": "b", "output_tokens": 0}, batch_line("a", 40)]
    file = tmp_path / "r.jsonl.gz"
    file.write_bytes(gzip.compress("\n".join(json.dumps(line) for line in lines).encode()))
    requests, tree = with_tree(requests_from_lists([[1], [1], [1]], ids=["a", "b", "c"]))
    lengths = predict_lengths(requests, tree, f"sample:{file}")
    # The last result of a counts; no output is shorter than a token.
    assert lengths.mean[:2].tolist() == [40, 1]
    assert lengths.mean[2] == pytest.approx(20.5, rel=0.2)
    assert lengths.note.endswith("1 with ids not among the requests, 2 that failed, 1 repeated")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"id": "zz", "output_tokens": 3}', "no id in .* is among the requests.*'zz'"),
        ('{"custom_id": "a", "error": {}}\n', "holds no result .all 1 requests in it failed"),
        ('\n \n{"id": "a"}', 'line 3: "output_tokens" is null, not a number of tokens'),
        ('{"id": "a", "output_tokens": -3}', 'line 1: "output_tokens" is -3'),
        ('{"id": "a", "output_tokens": true}', 'line 1: "output_tokens" is true'),
        ('{"id": "a", "output_tokens": 1e3}', 'line 1: "output_tokens" is 1000.0'),
        ('{"output_tokens": 3}', 'line 1: "id" is null, so it answers no request'),
        ('{"id": "a", "output_tokens": 3}\n{"id": "b"', "line 2: not JSON"),
        ("[3]", "line 1: the line is a list of 1, not a JSON object"),
        ('{"id": "a", "response": {"body": {}}}', 'line 1: "usage" is null, not an object'),
        (
            '{"id": "a", "response": {"status_code": 200, "body": {"data": []}}}',
            "holds no result .1 answers in it have no length, as embeddings have none",
        ),
        ("\n", "holds no result .it has no line"),
        ("", "is empty"),
    ],
)
def test_bad_results_files_answer_with_one_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "r.jsonl"
    file.write_text(text)
    requests, tree = with_tree(requests_from_lists([[1], [2]], ids=["a", "b"]))
    with pytest.raises(BlendplanError, match=message) as caught:
        predict_lengths(requests, tree, f"sample:{file}")
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)


def test_missing_results_file() -> None:
    requests, tree = with_tree(requests_from_lists([[1]]))
    with pytest.raises(BlendplanError, match="does not exist"):
        predict_lengths(requests, tree, "history:/nowhere/results.jsonl")


# Predicting from earlier results


def test_history_follows_prompt_length(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    prompt_tokens = rng.integers(1, 1000, 5000)
    lines: list[object] = [
        batch_line(f"old-{i}", 20 if p < 500 else int(rng.integers(100, 300)), int(p))
        for i, p in enumerate(prompt_tokens)
    ]
    file = write_lines(tmp_path / "r.jsonl", lines)
    requests, tree = with_tree(
        requests_from_lists([[1] * 5, [2] * 900, [3] * 5000], max_tokens=[8, None, None])
    )
    lengths = predict_lengths(requests, tree, f"history:{file}")
    assert lengths.mean[0] == 8
    assert lengths.mean[1:] == pytest.approx([200, 200], rel=0.1)
    assert lengths.p90[1:] == pytest.approx([280, 280], rel=0.1)
    assert set(sources(lengths)) == {"history"}
    assert "5,000 results" in lengths.note
    assert "by prompt length" in lengths.note


def test_history_with_its_requests_knows_what_the_prompts_say(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)

    def prompt(long: bool) -> str:
        subject = " ".join(rng.choice(["rivers", "metals", "trade", "birds"], 3))
        return f"{subject}. {'Write a long report.' if long else 'Answer with a letter.'}"

    kinds = rng.random(400) < 0.5
    earlier: list[object] = [
        {"id": f"old-{i}", "prompt": prompt(long)} for i, long in enumerate(kinds)
    ]
    outputs = np.where(kinds, rng.integers(400, 600, 400), 2)
    results: list[object] = [batch_line(f"old-{i}", int(d)) for i, d in enumerate(outputs)]
    now = rng.random(100) < 0.5
    lines: list[object] = [{"id": f"old-{i}", "prompt": prompt(long)} for i, long in enumerate(now)]
    requests = read_requests(write_lines(tmp_path / "now.jsonl", lines))
    names = (
        write_lines(tmp_path / "results.jsonl", results),
        write_lines(tmp_path / "earlier.jsonl", earlier),
    )
    method = "history:" + "+".join(map(str, names))
    lengths = predict_lengths(requests, build_tree(requests), method)
    assert (lengths.p50[now] > 300).mean() > 0.95
    assert (lengths.p50[~now] < 10).mean() > 0.95
    assert "what their prompts say" in lengths.note
    # Prompts of token ids have no words in common with those.
    other, tree = with_tree(requests_from_lists([[1, 2], [3]]))
    lengths = predict_lengths(other, tree, method)
    assert "token ids" in lengths.note
    assert lengths.mean == pytest.approx([outputs.mean()] * 2, rel=0.15)


def test_history_with_requests_of_another_job(tmp_path: Path) -> None:
    results = write_lines(tmp_path / "results.jsonl", [batch_line("a", 5)])
    earlier = write_lines(tmp_path / "earlier.jsonl", [{"id": "b", "prompt_token_ids": [1]}])
    requests, tree = with_tree(requests_from_lists([[1]]))
    with pytest.raises(BlendplanError, match=r"no id in .* is among the requests in .*'a'"):
        predict_lengths(requests, tree, f"history:{results}+{earlier}")


def test_history_without_prompt_lengths_is_one_distribution(tmp_path: Path) -> None:
    lines: list[object] = [{"id": str(i), "output_tokens": i} for i in range(1, 201)]
    file = write_lines(tmp_path / "r.jsonl", lines)
    requests, tree = with_tree(requests_from_lists([[1], [2] * 50]))
    lengths = predict_lengths(requests, tree, f"history:{file}")
    for column, right in zip(lengths.columns, (100.5, 100, 180), strict=True):
        assert column[0] == column[1] == pytest.approx(right, rel=0.05)
    assert "one distribution for all" in lengths.note


def test_a_request_that_may_generate_one_token_is_known() -> None:
    requests = requests_from_lists([[1, 2], [3, 4]], max_tokens=[1, 1])
    lengths = predict_lengths(requests, build_tree(requests))
    assert lengths.mean.tolist() == lengths.p90.tolist() == [1.0, 1.0]
    assert lengths.note == ""
    assert set(sources(lengths)) == {"known"}

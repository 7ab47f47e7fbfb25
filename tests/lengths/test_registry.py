"""Length predictors by name, and what is applied to and checked of any of them."""

import json
from pathlib import Path

import numpy as np
import pytest

from blendplan.errors import BlendplanError
from blendplan.lengths.earlier_results import Results
from blendplan.lengths.nearest_subtree import NearestSubtreePredictor
from blendplan.lengths.predict import predict_lengths
from blendplan.lengths.predicted import OUTCOMES, Lengths
from blendplan.lengths.registry import AUTO, LENGTH_PREDICTORS, length_methods, predictor_of
from blendplan.requests.columns import Requests
from blendplan.requests.in_memory import requests_from_lists
from blendplan.tree.build import build_tree
from blendplan.tree.prefix_tree import PrefixTree


class Always:
    """Predicts the same columns whatever is asked."""

    takes_file = False

    def __init__(self, mean: list[float], p50: list[float], p90: list[float]) -> None:
        outcomes = np.repeat(np.array(mean)[:, None], OUTCOMES, axis=1)
        self.lengths = Lengths.predicted(outcomes, p50, p90, note="always")

    def fit(self, requests: Requests, tree: PrefixTree, results: Results | None) -> "Always":
        return self

    def predict(self, requests: Requests, tree: PrefixTree) -> Lengths:
        return self.lengths


def always(
    monkeypatch: pytest.MonkeyPatch, mean: list[float], p50: list[float], p90: list[float]
) -> None:
    """Put `Always` in the place of the prior."""
    monkeypatch.setattr(LENGTH_PREDICTORS, "get", lambda name: lambda: Always(mean, p50, p90))


def test_methods_are_the_names_and_auto() -> None:
    assert length_methods()[:6] == [AUTO, "known", "prior", "sample", "history", "nearest"]
    assert [predictor_of(name)[1].takes_file for name in (AUTO, "known", "prior")] == [False] * 3
    for name in ("sample", "history", "nearest"):
        assert predictor_of(f"{name}:a:b")[::2] == (name, "a:b")


def test_auto_is_the_prior() -> None:
    requests = requests_from_lists([[1], [2]], output_tokens=[3, None])
    tree = build_tree(requests)
    auto, prior = (predict_lengths(requests, tree, method) for method in (AUTO, "prior"))
    assert auto.source == prior.source == "prior"
    assert auto.mean.tolist() == prior.mean.tolist()
    assert auto.known.tolist() == [True, False]


def test_stated_lengths_and_caps_are_applied_to_any_predictor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    always(monkeypatch, [10, 10, 10, 0], [10, 10, 10, 0], [30, 30, 30, 0])
    requests = requests_from_lists(
        [[1], [2], [3], [4]], output_tokens=[7, None, None, None], max_tokens=[None, 1, 20, None]
    )
    lengths = predict_lengths(requests, build_tree(requests), "prior")
    assert lengths.mean.tolist() == [7, 1, 10, 1]
    assert lengths.p90.tolist() == [7, 1, 20, 1]
    assert lengths.known.tolist() == [True, True, False, False]
    assert (lengths.source, lengths.note) == ("prior", "always")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (([1.0], [1.0, 1.0], [1.0, 1.0]), r"outcomes has the shape \[1, 10\]"),
        (([1.0, 1.0], [1.0, np.inf], [1.0, 1.0]), "p50 of request 1 is inf"),
        (([1.0, 1.0], [1.0, 1.0], [-2.0, 1.0]), "p90 of request 0 is -2"),
    ],
)
def test_predictions_are_checked(
    monkeypatch: pytest.MonkeyPatch, columns: tuple[list[float], ...], message: str
) -> None:
    always(monkeypatch, *columns)
    requests = requests_from_lists([[1], [2]])
    with pytest.raises(BlendplanError, match=message):
        predict_lengths(requests, build_tree(requests), "prior")


def test_nearest_is_the_rule_of_the_paper(tmp_path: Path) -> None:
    prompts = [[1, 1, row] for row in range(6)] + [[2, row] for row in range(6)]
    requests = requests_from_lists(prompts)
    tree = build_tree(requests)
    seen = {0: 10, 1: 30, 7: 100}
    file = tmp_path / "results.jsonl"
    file.write_text(
        "".join(
            json.dumps({"id": requests.ids[row].as_py(), "output_tokens": tokens}) + "\n"
            for row, tokens in seen.items()
        )
    )
    lengths = predict_lengths(requests, tree, f"nearest:{file}")
    rule = NearestSubtreePredictor().fit(
        tree, np.array(list(seen)), np.array(list(seen.values()), np.int32)
    )
    by_rule = rule.predict(tree.node_of)
    others = [row for row in range(12) if row not in seen]
    assert lengths.mean[others].tolist() == by_rule.mean[others].tolist() == [20] * 4 + [100] * 5
    assert lengths.mean[list(seen)].tolist() == list(seen.values())
    assert lengths.source == "nearest"

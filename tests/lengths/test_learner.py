"""Distributions of lengths from features: calibration, requests that still run, tiny inputs."""

import numpy as np
import pytest
from numpy.typing import NDArray

from blendplan.lengths import learner
from blendplan.lengths.from_prompts import ended_or_cut_off, lengths_from_prompts
from blendplan.lengths.learner import LengthLearner
from blendplan.lengths.predicted import OUTCOMES
from blendplan.requests.in_memory import requests_from_lists
from blendplan.tree.build import build_tree

FEATURES = 6


def made(n: int, seed: int, sigma: float = 0.6) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Features, two of which say something of the length, and lengths."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, FEATURES)).astype(np.float32)
    center = 5.0 + 0.7 * features[:, 0] + (features[:, 1] > 0.5)
    tokens = np.maximum(1, np.rint(np.exp(center + sigma * rng.normal(size=n))))
    return features, tokens.astype(np.int64)


@pytest.mark.parametrize("samples", [200, 1000])
def test_quantiles_and_totals_are_calibrated(samples: int) -> None:
    under50, under90, totals = [], [], []
    for seed in range(4):
        features, tokens = made(6000, seed)
        fitted = LengthLearner().fit(features[:samples], tokens[:samples])
        lengths, truth = fitted.predict(features[samples:]), tokens[samples:]
        under50.append((truth <= lengths.p50).mean())
        under90.append((truth <= lengths.p90).mean())
        totals.append(lengths.mean.sum() / truth.sum())
    assert np.mean(under50) == pytest.approx(0.5, abs=0.05)
    assert np.mean(under90) == pytest.approx(0.9, abs=0.035)
    assert np.mean(totals) == pytest.approx(1.0, abs=0.07)


def test_it_learns_what_the_features_say() -> None:
    features, tokens = made(5000, 0)
    lengths = LengthLearner().fit(features[:1000], tokens[:1000]).predict(features[1000:])
    truth = tokens[1000:]
    error = np.abs(truth - lengths.p50).mean()
    assert error < 0.75 * np.abs(truth - np.median(tokens[:1000])).mean()
    assert np.corrcoef(np.log(lengths.p50), np.log(truth))[0, 1] > 0.75


def test_a_kind_that_is_sure_of_its_length_stays_so() -> None:
    features, tokens = made(1000, 3)
    sure = features[:, 2] > 0.5
    tokens[sure] = 2
    lengths = LengthLearner().fit(features, tokens).predict(features)
    assert lengths.p90[sure].max() < 3
    # A hundredth of what the others have on average.
    assert lengths.mean[sure].mean() - 2 < 0.01 * tokens[~sure].mean()


def test_weights_undo_a_choice_by_length() -> None:
    rng = np.random.default_rng(5)
    features, tokens = made(20_000, 5)
    # Requests of the long kind are three times as likely to be in the sample.
    chance = np.where(features[:, 1] > 0.5, 0.09, 0.03)
    rows = np.flatnonzero(rng.random(len(tokens)) < chance)
    noise = np.zeros((len(tokens), 1), np.float32)
    weighted = LengthLearner().fit(noise[rows], tokens[rows], 1.0 / chance[rows]).predict(noise[:1])
    plain = LengthLearner().fit(noise[rows], tokens[rows]).predict(noise[:1])
    estimate = np.average(tokens[rows], weights=1.0 / chance[rows])
    assert weighted.mean[0] == pytest.approx(estimate, rel=0.03)
    assert plain.mean[0] > 1.15 * estimate


def test_running_requests_are_not_taken_for_short_ones() -> None:
    means: dict[str, list[float]] = {"told": [], "ended only": [], "as if ended": []}
    for seed in range(3):
        rng = np.random.default_rng(seed)
        features, tokens = made(6000, seed)
        k = 1500
        seen = tokens[:k].copy()
        # Each has run for a while, whatever its length; about half are not done.
        ran = np.rint(np.exp(rng.normal(5.3, 1.0, k))).astype(np.int64)
        censored = ran < seen
        seen[censored] = ran[censored]
        assert 0.4 < censored.mean() < 0.6
        truth = tokens[k:].mean()
        for name, fitted in (
            ("told", LengthLearner().fit(features[:k], seen, censored=censored)),
            ("ended only", LengthLearner().fit(features[:k][~censored], seen[~censored])),
            ("as if ended", LengthLearner().fit(features[:k], np.maximum(seen, 1))),
        ):
            means[name].append(float(fitted.predict(features[k:]).mean.mean()) / truth)
    assert np.mean(means["told"]) == pytest.approx(1.0, abs=0.12)
    assert np.mean(means["as if ended"]) < 0.75
    assert np.mean(means["ended only"]) < 0.85


def test_nothing_ended_yet() -> None:
    features, _ = made(300, 0)
    seen = np.full(300, 700, dtype=np.int64)
    fitted = LengthLearner().fit(features, seen, censored=np.ones(300, dtype=np.bool_))
    lengths = fitted.predict(features)
    assert (lengths.p50 > 700).all()
    assert (lengths.mean > lengths.p50).all()
    assert np.isfinite(lengths.outcomes).all()


def test_an_output_as_long_as_its_cap_would_have_been_longer() -> None:
    tokens, cut_off = ended_or_cut_off(
        np.array([5, 9, 10, 12], np.int32), np.array([-1, 10, 10, 10], np.int32)
    )
    assert cut_off.tolist() == [False, False, True, True]
    assert tokens.tolist() == [5, 9, 9, 11]


def test_order_of_samples_and_threads_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    features, tokens = made(700, 1)
    rng = np.random.default_rng(0)
    weights, censored = rng.uniform(0.5, 2.0, 500), rng.random(500) < 0.2
    one = LengthLearner().fit(features[:500], tokens[:500], weights, censored)
    order = rng.permutation(500)
    other = LengthLearner().fit(features[order], tokens[order], weights[order], censored[order])
    lengths = one.predict(features)
    monkeypatch.setattr(learner, "_CHUNK", 11)
    for again in (one.predict(features), other.predict(features)):
        assert (again.outcomes == lengths.outcomes).all()
        assert (again.p50 == lengths.p50).all()
        assert (again.p90 == lengths.p90).all()


@pytest.mark.parametrize("samples", [1, 2, 3, 50])
def test_equal_results_leave_no_doubt(samples: int) -> None:
    features, _ = made(100, 0)
    fitted = LengthLearner().fit(features[:samples], np.full(samples, 40))
    lengths = fitted.predict(features)
    assert lengths.outcomes == pytest.approx(np.full((100, OUTCOMES), 40))
    # A whole number stands for all that round to it.
    assert (np.abs(lengths.p50 - 40) <= 0.5).all()
    assert (np.abs(lengths.p90 - 40) <= 0.5).all()


def test_outcomes_rise_and_hold_the_quantiles() -> None:
    features, tokens = made(2000, 3)
    lengths = LengthLearner().fit(features[:300], tokens[:300]).predict(features)
    assert (np.diff(lengths.outcomes, axis=1) >= 0).all()
    assert (lengths.outcomes > 0).all()
    assert (lengths.p50 <= lengths.p90).all()


def test_one_result_of_identical_prompts() -> None:
    requests = requests_from_lists([[1], [1], [1]])
    lengths = lengths_from_prompts(
        requests, build_tree(requests), np.array([2]), np.array([17], np.int32)
    )
    assert lengths.mean == pytest.approx([17, 17, 17])

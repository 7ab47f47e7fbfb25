"""Requests of a proof that fit its time."""

from pathlib import Path

import pytest

from blendplan.proving.folder import ProofFolder
from blendplan.proving.scale import scaled
from blendplan.proving.settings import ProofSettings, proof_settings


def after(settings: ProofSettings, folder: Path) -> ProofSettings:
    return scaled(settings, ProofFolder(folder, settings.identity))


def of(**given: object) -> ProofSettings:
    return proof_settings("vllm", "llama-3.1-8b", **{"gpu": "h100-80g", **given})  # type: ignore[arg-type]


def test_less_time_means_shorter_requests_and_a_smaller_cache(tmp_path: Path) -> None:
    found = []
    for minutes in (20.0, 80.0, 20_000.0):
        one = after(of(minutes=minutes), tmp_path / str(minutes))
        found.append((one.longest or 0, one.kv_tokens))
    (short, little), (longer, more), (whole, all_of_it) = found
    assert 128 <= short < longer < whole == 8192
    assert all_of_it is None
    assert little is not None and more is not None
    assert little / short == pytest.approx(more / longer, rel=0.01)
    assert little % 16 == 0


def test_what_was_chosen_once_holds(tmp_path: Path) -> None:
    first = after(of(minutes=20.0), tmp_path / "one")
    again = after(of(minutes=600.0), tmp_path / "one")
    assert (again.longest, again.kv_tokens) == (first.longest, first.kv_tokens)


def test_a_number_of_requests_that_comes_later_or_goes_changes_nothing(tmp_path: Path) -> None:
    first = after(of(minutes=20.0), tmp_path / "one")
    assert after(of(minutes=20.0, requests=100), tmp_path / "one").longest == first.longest
    after(of(requests=100), tmp_path / "two")
    assert after(of(minutes=20.0), tmp_path / "two").longest is None


def test_a_given_cache_stays_as_it_is(tmp_path: Path) -> None:
    found = after(of(minutes=20.0, kv_tokens=200_000), tmp_path / "given")
    assert found.kv_tokens == 200_000
    assert found.longest is not None and found.longest < 8192


def test_a_number_of_requests_and_a_cpu_stay_as_they_are(tmp_path: Path) -> None:
    for number, settings in enumerate((of(requests=100), of(gpu=None))):
        assert after(settings, tmp_path / str(number)) == settings

"""The GPU measurements: refused without a GPU, and their fit of the overlap exponent."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from benchmarks.gpu.overlap_fit import fit_overlap

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(find_spec("torch") is not None, reason="torch is installed and may see a GPU")
def test_refused_with_one_line_without_torch(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--out", tmp_path / "out"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert ran.returncode == 1
    assert ran.stdout == ""
    assert ran.stderr == (
        "error: torch is not installed; these measurements need torch with a GPU\n"
    )
    assert not (tmp_path / "out").exists()


def _row(
    way: str, sms: int, gemm_s: float, attention_s: float, together_s: float
) -> dict[str, object]:
    return {
        "gemm_tokens": 256 if gemm_s < 5e-3 else 1024,
        "batch": 64,
        "context": 1024,
        "way": way,
        "attention_sms": sms,
        "matched": False,
        "gemm_s": gemm_s,
        "attention_s": attention_s,
        "together_s": together_s,
    }


def test_overlap_exponent_of_made_up_pairs() -> None:
    pairs = [(4e-3 * k, 4e-3 * k * ratio) for k in (1, 2) for ratio in (0.25, 0.5, 1, 2, 4)]
    rows = [_row("streams", 0, g, a, g + a) for g, a in pairs]
    rows += [_row("partition", 32, g, a, (g**2 + a**2) ** 0.5) for g, a in pairs]
    rows.append({**_row("partition", 32, 4e-3, 3e-3, 5e-3), "matched": True})
    fit = fit_overlap(rows)
    assert fit["exponent"]["streams"]["q"] == pytest.approx(1.0, abs=0.01)
    assert fit["exponent"]["partition_32"]["q"] == pytest.approx(2.0, abs=0.01)
    best = fit["exponent"]["best"]
    assert best["q"] == pytest.approx(2.0, abs=0.01)
    assert best["q_p5"] <= best["q"] <= best["q_p95"]
    assert best["cases"] == len(pairs)
    assert best["mape"] < 0.5
    assert fit["frontier"] == [{"attention_sms": 32, "gemm_rate": 0.8, "attention_rate": 0.6}]
    assert json.loads(json.dumps(fit)) == fit


@pytest.mark.parametrize("q", [1.0, 1.6, 2.5, 6.0])
def test_overlap_exponent_is_within_its_spread_under_noise(q: float) -> None:
    """Times together that are 3 % off at random, over more pairs."""
    rng = np.random.default_rng(0)
    rows = []
    for pair in range(24):
        for ratio in (0.25, 0.5, 1.0, 2.0, 4.0):
            gemm_s, attention_s = 4e-3, 4e-3 * ratio
            exact_s = (gemm_s**q + attention_s**q) ** (1 / q)
            row = _row("streams", 0, gemm_s, attention_s, exact_s * rng.lognormal(0.0, 0.03))
            rows.append({**row, "batch": pair})
    found = fit_overlap(rows)["exponent"]["streams"]
    assert found["q"] == pytest.approx(q, rel=0.1)
    assert 0.95 * found["q_p5"] <= q <= 1.05 * found["q_p95"]
    assert found["q_p5"] < found["q_p95"]
    assert 1.0 < found["mape"] < 4.0


def test_overlap_fit_of_no_partitions() -> None:
    fit = fit_overlap([_row("streams", 0, 4e-3, 4e-3, 6e-3)])
    assert set(fit["exponent"]) == {"streams", "best"}
    assert fit["frontier"] == []

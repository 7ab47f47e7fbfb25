"""The GPU measurements where there is neither torch nor a GPU: cases, fits, going on, refusals."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blendplan.proving.gpu.cases import Row, measured, shuffled, write_rows
from blendplan.proving.gpu.launch_costs import BACK_TO_BACK, ChainTimes, launch_costs
from blendplan.proving.gpu.overlap_fit import fit_overlap
from blendplan.proving.gpu.sections import SECTIONS

ROOT = Path(__file__).parents[2]


def _gpu(*words: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "blendplan.proving.gpu", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )


@pytest.mark.skipif(find_spec("torch") is not None, reason="torch is installed and may see a GPU")
def test_refused_with_one_line_without_torch(tmp_path: Path) -> None:
    ran = _gpu("--out", tmp_path / "out")
    refusal = "error: torch is not installed; these measurements need torch with a GPU\n"
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", refusal)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--sections", "gemm,nothing"), "unknown section 'nothing': known are gemm, decode"),
        (("--seconds", "0"), "--seconds 0.0: give a number above 0"),
        (("--seconds", "nan"), "--seconds nan: give a number above 0"),
    ],
)
def test_wrong_usage(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    ran = _gpu("--out", tmp_path / "out", *words)
    assert ran.returncode == 2
    assert said in ran.stderr


def test_what_is_there_is_not_measured_again(tmp_path: Path) -> None:
    """Nor is a GPU needed for that."""
    for section in SECTIONS.values():
        (tmp_path / section.result).write_text("from an earlier run")
    ran = _gpu("--out", tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("is there already") == len(SECTIONS)
    assert not (tmp_path / "machine.json").exists()
    (tmp_path / SECTIONS["launch"].result).unlink()
    assert _gpu("--out", tmp_path, "--sections", "gemm,overlap").returncode == 0


def test_cases_that_are_refused_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    def row_of(case: int) -> Row:
        if case % 3 == 0:
            raise RuntimeError(f"no kernel for {case % 2}\nand more")
        return {"case": case}

    rows = measured("some", 60.0, range(30), row_of)
    assert sorted(row["case"] for row in rows) == [case for case in range(30) if case % 3]
    assert [row["case"] for row in rows] != sorted(row["case"] for row in rows)
    said = capsys.readouterr().out
    assert "some: 5 cases refused: no kernel for 0\n" in said
    assert "and more" not in said
    with pytest.raises(RuntimeError, match="all cases were refused: no kernel for"):
        measured("some", 60.0, [0, 3, 6], row_of)
    assert measured("some", 0.0, range(30), row_of) == []


@given(st.lists(st.integers()))
def test_the_order_is_the_same_each_time(cases: list[int]) -> None:
    assert shuffled(cases) == shuffled(iter(cases))
    assert sorted(shuffled(cases)) == sorted(cases)


def test_a_table_that_is_too_small_to_fit_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"kernel": "a" if i < 120 else "b", "m": i, "time_ms": 0.1} for i in range(150)]
    write_rows(rows, tmp_path / "t.parquet")
    table = pq.read_table(tmp_path / "t.parquet")
    assert table.schema.field("time_ms").type == "float"
    assert table["m"].to_pylist() == list(range(150))
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "t.parquet: 150 rows"
    assert said[1:] == [
        "t.parquet: b has 30 rows, of which a fit needs 100; measure again with more --seconds"
    ]


@given(
    st.tuples(*[st.floats(1e-7, 1e-4)] * 5),
    st.lists(st.integers(1, 2000), min_size=2, max_size=5, unique=True),
    st.floats(0.0, 0.5),
)
def test_launch_costs_of_made_up_chains(
    prices: tuple[float, ...], lengths: list[int], noise: float
) -> None:
    """The prices that the times are made of; slow repeats, less than half of them, do not count."""
    eager_s, eager_cpu_s, kernel_s, start_s, gap_s = prices

    def repeats(time_s: float) -> list[float]:
        return [time_s, time_s * (1 + noise), time_s, time_s, time_s * (1 + 9 * noise)]

    chains = {
        kernels: ChainTimes(
            repeats(kernels * eager_s),
            repeats(kernels * eager_cpu_s),
            repeats(start_s + kernels * kernel_s),
            repeats(1e-5),
            repeats(BACK_TO_BACK * (gap_s + kernels * kernel_s)),
        )
        for kernels in lengths
    }
    found = launch_costs(chains)
    assert found["eager_kernel_s"] == pytest.approx(eager_s, rel=1e-6)
    assert found["eager_kernel_cpu_s"] == pytest.approx(eager_cpu_s, rel=1e-6)
    assert found["graph_kernel_s"] == pytest.approx(kernel_s, rel=1e-6)
    assert found["graph_start_s"] == pytest.approx(start_s, abs=1e-6 * max(lengths) * kernel_s)
    assert found["graph_gap_s"] == pytest.approx(gap_s, abs=1e-6 * max(lengths) * kernel_s)
    assert found["graph_cpu_s"] == {str(kernels): 1e-5 for kernels in lengths}
    assert json.loads(json.dumps(found)) == found


def test_launch_costs_of_one_chain() -> None:
    """As where the limit left time for no more."""
    times = ChainTimes([0.4], [0.2], [0.1], [1e-5], [2.0])
    found = launch_costs({100: times})
    assert (found["eager_kernel_s"], found["graph_start_s"]) == (pytest.approx(4e-3), 0.0)


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

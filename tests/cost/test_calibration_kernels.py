"""From tables of kernel times to a profile, past the traps in the tables, and to its accuracy."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blendplan.cost.calibration.from_kernels import calibrate_kernels
from blendplan.cost.calibration.kernel_tables import (
    all_reduce_rows,
    decode_rows,
    gemm_rows,
    read_rows,
)
from blendplan.cost.operators.gemm import GemmModel
from blendplan.cost.operators.of_gpu import all_reduce_from, operators
from blendplan.cost.registry import cost_model
from blendplan.errors import BlendplanError
from blendplan.hardware.gpu import GpuSpec
from blendplan.hardware.lookup import gpu_spec, model_spec
from blendplan.hardware.profile import write_profile
from tests.cli.cli_runs import answer, error_line, run
from tests.cost.kernel_folder import ABSURD_MS, TRUE_GEMM, write_kernel_tables

H100 = replace(gpu_spec("h100-80g"), fitted={})
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_kernel_tables(tmp_path_factory.mktemp("kernels"), H100)


@pytest.fixture(scope="module")
def calibrated(tables: Path) -> GpuSpec:
    gpu, reports = calibrate_kernels(tables, H100)
    assert {report.operator for report in reports} == {
        "gemm",
        "decode_attention",
        "prefill_attention",
        "all_reduce",
    }
    assert all(report.error_share < 0.03 for report in reports), reports
    return gpu


def test_rows_that_mislead_are_left_out(tables: Path) -> None:
    for rows in (gemm_rows(tables), decode_rows(tables), all_reduce_rows(tables)):
        assert rows is not None
        assert len(rows) > 10
        assert (rows["time_ms"] < ABSURD_MS).all()


def test_calibration_predicts_what_the_tables_measured(calibrated: GpuSpec) -> None:
    m, n, k = np.array([3, 700, 5000]), np.array([5000, 3000, 9000]), np.array([3000, 8000, 2000])
    fitted = operators(calibrated).gemm.predict(m, n, k)
    truth = GemmModel(H100, "bf16", TRUE_GEMM).predict(m, n, k)
    np.testing.assert_allclose(fitted, truth, rtol=0.06)


def test_the_default_kernel_is_that_of_vllm(calibrated: GpuSpec) -> None:
    assert operators(calibrated).kernels["decode_attention"] == "fast_kernel"
    assert set(calibrated.fitted["decode_attention"]["bf16"]) == {"fast_kernel", "slow_kernel"}


def test_a_profile_survives_the_round_trip(calibrated: GpuSpec, tmp_path: Path) -> None:
    profile = tmp_path / "mine.toml"
    write_profile(calibrated, profile)
    assert gpu_spec(profile) == calibrated
    model = model_spec("llama-3.1-8b")
    table = cost_model("calibrated", model, gpu_spec(profile)).step_table(64, 8)
    again = cost_model("calibrated", model, calibrated).step_table(64, 8)
    np.testing.assert_array_equal(table.linear_s, again.linear_s)


def test_command_writes_a_profile(tables: Path, tmp_path: Path) -> None:
    profile = tmp_path / "mine.toml"
    # Only GEMMs, so that the command is quick.
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "gemm.parquet").symlink_to(tables / "gemm.parquet")
    found = answer("calibrate", "--kernels", tmp_path, "--gpu", "h100", "-o", profile)
    assert [fit["operator"] for fit in found["fits"]] == ["gemm"]
    assert found["fits"][0]["mape"] < 3
    assert gpu_spec(profile).calibrated
    assert operators(gpu_spec(profile)).measured == ("gemm",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one of --kernels DIR, --steps FILE and --proof DIR"),
        (["--kernels", "x", "--steps", "y"], "give one of"),
        (["--steps", "x", "--proof", "y"], "give one of"),
        (["--kernels", "x"], "--kernels needs --gpu NAME"),
    ],
)
def test_command_refuses_wrong_usage(tmp_path: Path, arguments: list[str], message: str) -> None:
    result = run("calibrate", *arguments, "-o", tmp_path / "p.toml")
    assert result.exit_code == 2
    assert message in error_line(result)


def test_a_profile_must_be_named_as_one(tmp_path: Path) -> None:
    result = run("calibrate", "--steps", "x", "-o", tmp_path / "profile.txt")
    assert result.exit_code == 2
    assert "ends in .toml" in error_line(result)


def test_folders_without_tables_of_the_gpu(tables: Path, tmp_path: Path) -> None:
    with pytest.raises(BlendplanError, match="holds no table of kernel times"):
        calibrate_kernels(tmp_path, H100)
    with pytest.raises(BlendplanError, match="no usable rows of l4"):
        calibrate_kernels(tables, gpu_spec("l4"))


def test_bad_tables(tmp_path: Path) -> None:
    path = tmp_path / "gemm.parquet"
    path.write_bytes(b"no parquet")
    with pytest.raises(BlendplanError, match="cannot be read as Parquet"):
        read_rows(tmp_path, "gemm", ())
    pq.write_table(pa.table({"gpu": ["h100-sxm"], "time_ms": [1.0]}), path)
    with pytest.raises(BlendplanError, match="has no column 'm'"):
        read_rows(tmp_path, "gemm", ("m",))
    pq.write_table(pa.table({"gpu": ["h100-sxm"], "time_ms": [-1.0]}), path)
    with pytest.raises(BlendplanError, match="time_ms is -1 in row 0"):
        read_rows(tmp_path, "gemm", ())


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("m", ["x"] * 120, "m is string; expected numbers"),
        ("dtype", [1.0] * 120, "dtype is double; expected text"),
        ("m", [None] + [8] * 119, "m is nan in row 0; expected numbers above 0"),
        ("m", [8] * 119 + [0], "m is 0 in row 119"),
        ("k", [4096.0] * 119 + [1e300], r"k is 1e\+300 in row 119"),
        ("time_ms", [1.0] * 7 + [float("inf")] * 113, "time_ms is inf in row 7"),
    ],
)
def test_bad_values(tmp_path: Path, column: str, values: list[object], message: str) -> None:
    good: dict[str, list[object]] = {
        "gpu": ["h100-sxm"],
        "dtype": ["bf16"],
        "m": [8],
        "n": [4096],
        "k": [4096],
    }
    columns = {name: value * 120 for name, value in good.items()} | {"time_ms": [1.0] * 120}
    pq.write_table(pa.table(columns | {column: values}), tmp_path / "gemm.parquet")
    with pytest.raises(BlendplanError, match=rf"gemm\.parquet: {message}"):
        calibrate_kernels(tmp_path, H100)
    output = tmp_path / "mine.toml"
    output.write_text("from last time")
    result = run("calibrate", "--kernels", tmp_path, "--gpu", "h100", "-o", output)
    assert result.exit_code == 1
    assert error_line(result).count("\n") == 0
    assert output.read_text() == "from last time"


def test_rows_without_a_gpu_are_of_none(tmp_path: Path) -> None:
    columns = {"gpu": [None, "h100-sxm"], "dtype": ["bf16"] * 2, "time_ms": [1.0] * 2}
    sizes = {name: [4096] * 2 for name in "mnk"}
    pq.write_table(pa.table(columns | sizes), tmp_path / "gemm.parquet")
    with pytest.raises(BlendplanError, match="no usable rows of h100-80g, nor of any other"):
        calibrate_kernels(tmp_path, H100)


def test_a_gpu_that_the_catalogue_lacks(tables: Path, tmp_path: Path) -> None:
    """Its profile names it, as do the tables."""
    gemm = pq.read_table(tables / "gemm.parquet")
    labels = pa.array(["rtx-9090"] * len(gemm))
    pq.write_table(gemm.set_column(0, "gpu", labels), tmp_path / "gemm.parquet")
    (tmp_path / "datasheet.toml").write_text('base = "h100-80g"\nname = "rtx-9090"\nfitted = {}\n')
    words = ("--kernels", tmp_path, "--gpu", tmp_path / "datasheet.toml")
    found = answer("calibrate", *words, "-o", tmp_path / "profile.toml")
    assert found["gpu"] == "rtx-9090"
    assert found["fits"][0]["mape"] < 3
    assert gpu_spec(tmp_path / "profile.toml").fitted["gemm"]


def test_a_profile_serves_every_command(
    calibrated: GpuSpec, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("profile")
    profile, requests, plan = place / "mine.toml", place / "requests.jsonl", place / "plan.arrow"
    write_profile(replace(calibrated, name="mine"), profile)
    requests.write_text('{"prompt_token_ids": [1, 2, 3], "output_tokens": 4}\n')
    planned = answer("plan", requests, "--gpu", profile, "-o", plan)
    assert planned["gpu"] == "mine"
    assert planned["cost_model"] == "calibrated"
    assert answer("inspect", plan)["cost_note"] == ""
    assert run("verify", plan).exit_code == 0
    replayed = answer("replay", plan, "--engine", "sim")
    assert replayed["makespan_s"] == pytest.approx(planned["predicted"]["makespan_s"])
    assert answer("compare", requests, "--gpu", profile, "--policies", "fcfs")["policies"]


@pytest.mark.parametrize(
    ("fitted", "message"),
    [
        ({"gemm": {"bf16": {"flop_share": 1.0}}}, "fitted.gemm.bf16: expected the fields"),
        ({"gemm": {"bf16": TRUE_GEMM._asdict() | {"tile_s": "x"}}}, "tile_s is 'x'"),
        ({"default": {"all_reduce": "a"}, "all_reduce": {"a": {"two": []}}}, "expected rows"),
    ],
)
def test_bad_parameters_in_a_profile(fitted: dict[str, object], message: str) -> None:
    with pytest.raises(BlendplanError, match=message):
        cost_model("calibrated", model_spec("llama-3.1-8b"), replace(H100, fitted=fitted))


def test_protocols_that_are_no_table() -> None:
    with pytest.raises(BlendplanError, match="expected rows of largest bytes"):
        all_reduce_from(3, "here")


def test_accuracy_prints_rows_for_shipped_parameters(tables: Path) -> None:
    """The made-up tables differ from the shipped parameters by tens of percent, and it says so."""
    ran = subprocess.run(
        [sys.executable, ROOT / "benchmarks/accuracy.py", "--data", tables, "--json", "--shipped"],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": ""},
    )
    rows = {row["operator"]: row for row in json.loads(ran.stdout)["rows"]}
    assert set(rows) == {"gemm", "all_reduce", "linear_layer_sum"}, "its kernels are not shipped"
    assert rows["gemm"]["gpu"] == "h100-80g"
    assert rows["gemm"]["dtype"] == "bf16"
    assert rows["linear_layer_sum"]["rows"] == 1
    assert 10 < rows["gemm"]["mape"] < 60

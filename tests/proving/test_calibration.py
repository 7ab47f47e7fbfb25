"""From the folder of a proof to a profile, and to the shipped catalogue."""

import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blendplan.cost.registry import cost_model
from blendplan.errors import BlendplanError
from blendplan.hardware.lookup import gpu_spec, model_spec
from blendplan.proving.measurements import read_proof
from tests.cli.cli_runs import SOURCES, answer, error_line, run
from tests.cost.kernel_folder import LABEL, write_kernel_tables

PROJECT = Path(__file__).parents[2]
H100 = replace(gpu_spec("h100-80g"), fitted={})
MODEL = "llama-3.1-8b"
MACHINE = {
    "gpu": "h100-80g",
    "device": "NVIDIA H100 80GB HBM3",
    "driver": "580.65.06",
    "torch": "2.9.0",
    "power_limit_w": 700.0,
    "date": "2031-05-04",
}
SOURCE = (
    "Fitted to kernel times of NVIDIA H100 80GB HBM3 at 700 W, measured on 2031-05-04 with driver "
    "580.65.06, torch 2.9.0"
)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_kernel_tables(tmp_path_factory.mktemp("tables"), H100)


def _proof(
    folder: Path,
    tables: Path | None = None,
    *,
    names: tuple[str, ...] = ("gemm", "all_reduce"),
    steps: bool = False,
    machine: Mapping[str, Any] = MACHINE,
    slow: float = 1.0,
    **said: object,
) -> Path:
    """A small proof; with tables, of two operators that are fitted quickly."""
    folder.mkdir(exist_ok=True)
    if tables is not None:
        (folder / "kernels").mkdir()
        for name in names:
            shutil.copy(tables / f"{name}.parquet", folder / "kernels")
        (folder / "kernels" / "machine.json").write_text(json.dumps(machine))
    if steps:
        rng = np.random.default_rng(0)
        prefill, decode = rng.integers(1, 512, (2, 200))
        columns = {
            "prefill_tokens": prefill,
            "decode_tokens": decode,
            "kv_tokens_read": decode * 100,
            "sequences": decode + 1,
            "time_s": slow * (2e-3 + 3e-5 * (prefill + decode)),
        }
        pq.write_table(pa.table(columns), folder / "steps.parquet")
    if said:
        (folder / "proof.json").write_text(
            json.dumps({"format": "blendplan-proof-1", "identity": said})
        )
    return folder


def test_a_whole_proof_adds_launches_to_kernels(tables: Path, tmp_path: Path) -> None:
    proof = _proof(tmp_path / "proof", tables, steps=True, gpu="h100-80g", model=MODEL, slow=1.6)
    profile = tmp_path / "profile.toml"
    found = answer("calibrate", "--proof", proof, "-o", profile)
    assert {fit["operator"] for fit in found["fits"]} == {"gemm", "all_reduce"}
    assert found["gpu"] == "h100-80g"
    assert found["launches"]["source"] == f"200 steps of {MODEL}"
    for model in (MODEL, "qwen-3-8b"):
        priced = cost_model("calibrated", model_spec(model), gpu_spec(profile)).parameters()
        assert priced["launches"]["layer_s"] == found["launches"]["layer_s"] > 0.0
        # Attention, which was not measured here, is as the catalogue has it.
        spec = gpu_spec("h100-80g")
        shipped = cost_model("calibrated", model_spec(model), spec).parameters()
        assert priced["decode_attention"] == shipped["decode_attention"]
        assert priced["gemm"] != shipped["gemm"]
        assert priced["source"].startswith(
            f"{SOURCE}; what that lacks: Fitted to kernel times of github"
        )
    told = run("calibrate", "--proof", proof, "-o", profile)
    assert "ms more for each layer with prompts" in told.stdout


def test_steps_that_wait_for_a_cpu_price_their_model_as_a_whole(
    tables: Path, tmp_path: Path
) -> None:
    proof = _proof(tmp_path / "proof", tables, steps=True, gpu="h100-80g", model=MODEL, slow=10.0)
    profile = tmp_path / "profile.toml"
    found = answer("calibrate", "--proof", proof, "-o", profile)
    assert "launches" not in found
    assert found["steps"]["model"] == MODEL
    own = cost_model("calibrated", model_spec(MODEL), gpu_spec(profile))
    assert own.parameters()["measured"] == ["steps"]
    assert own.parameters()["step_s"] + own.parameters()["prefill_step_s"] == pytest.approx(
        2e-2, rel=0.01
    )
    other = cost_model("calibrated", model_spec("qwen-3-8b"), gpu_spec(profile)).parameters()
    assert other["measured"] != ["steps"]


def test_steps_alone(tmp_path: Path) -> None:
    """As on a machine without a GPU, of which nobody says what it is."""
    proof = _proof(tmp_path / "proof", steps=True, model=MODEL, gpu=None, tp=2)
    profile = tmp_path / "mine.toml"
    found = answer("calibrate", "--proof", proof, "-o", profile)
    assert "fits" not in found
    assert (found["gpu"], found["steps"]["tp"]) == ("mine", 2)
    assert run("calibrate", "--proof", proof, "--tp", "1", "-o", profile).exit_code == 0
    assert gpu_spec(profile).fitted["steps"]["tp"] == 1


def test_kernels_alone_on_a_gpu_that_the_catalogue_lacks(tables: Path, tmp_path: Path) -> None:
    """Tables have it by the name of its driver, the profile by its user's."""
    machine = MACHINE | {"gpu": "nvidia-rtx-9090", "device": "NVIDIA RTX 9090"}
    proof = _proof(tmp_path / "proof", tables, names=("gemm",), machine=machine)
    gemm = pq.read_table(proof / "kernels" / "gemm.parquet")
    labels = pa.array(["nvidia-rtx-9090"] * len(gemm))
    pq.write_table(gemm.set_column(0, "gpu", labels), proof / "kernels" / "gemm.parquet")
    profile, described = tmp_path / "profile.toml", tmp_path / "mine.toml"
    said = error_line(run("calibrate", "--proof", proof, "-o", profile))
    assert "is of GPU nvidia-rtx-9090, which is not known here; describe it in a TOML file" in said
    described.write_text('base = "h100-80g"\nname = "rtx-9090"\nfitted = {}\n')
    found = answer("calibrate", "--proof", proof, "--gpu", described, "-o", profile)
    assert found["gpu"] == "rtx-9090"
    assert found["fits"][0]["mape"] < 3
    assert "steps" not in found


def test_kernels_cut_short_leave_the_steps(tables: Path, tmp_path: Path) -> None:
    proof = _proof(tmp_path / "proof", tables, names=("gemm",), steps=True, model=MODEL)
    few = pq.read_table(proof / "kernels" / "gemm.parquet")[:50]
    pq.write_table(few, proof / "kernels" / "gemm.parquet")
    profile = tmp_path / "profile.toml"
    found = answer("calibrate", "--proof", proof, "-o", profile)
    assert "fits" not in found
    assert found["launches"]["source"].startswith("200 steps")
    (proof / "steps.parquet").unlink()
    said = error_line(run("calibrate", "--proof", proof, "-o", profile))
    assert "has no usable rows of h100-80g" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--gpu", "l4"), "were measured on h100-80g, not on l4; leave --gpu out"),
        (("--model", "qwen-3-8b"), f"are of {MODEL}, not of qwen-3-8b; leave --model out"),
        (("--gpu", "h101"), "unknown GPU 'h101'"),
    ],
)
def test_options_that_contradict_the_proof(
    tables: Path, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    proof = _proof(tmp_path / "proof", tables, steps=True, gpu="h100-80g", model=MODEL)
    result = run("calibrate", "--proof", proof, *words, "-o", tmp_path / "profile.toml")
    assert result.exit_code
    assert said in result.stderr


def test_steps_of_another_gpu(tmp_path: Path) -> None:
    proof = _proof(tmp_path / "proof", steps=True, gpu="h100-80g", model=MODEL)
    said = error_line(run("calibrate", "--proof", proof, "--gpu", "l4", "-o", tmp_path / "l4.toml"))
    assert "the steps in" in said
    assert "were measured on h100-80g, not on l4; leave --gpu out" in said


def test_a_model_that_is_elsewhere_now(tmp_path: Path) -> None:
    profile = tmp_path / "profile.toml"
    proof = _proof(tmp_path / "proof", steps=True, model="/no/such/folder")
    said = error_line(run("calibrate", "--proof", proof, "-o", profile))
    assert "are of /no/such/folder, which is not known here; say where it is with --model" in said
    assert answer("calibrate", "--proof", proof, "--model", MODEL, "-o", profile)["steps"]
    (proof / "proof.json").unlink()
    said = error_line(run("calibrate", "--proof", proof, "-o", profile))
    assert "does not say which model its steps are of; name it with --model" in said


def test_folders_that_are_no_proofs(tmp_path: Path) -> None:
    with pytest.raises(BlendplanError, match="does not exist; give what 'blendplan prove -o'"):
        read_proof(tmp_path / "none")
    with pytest.raises(BlendplanError, match="has neither kernels/ with tables"):
        read_proof(tmp_path)
    proof = _proof(tmp_path / "proof", steps=True, tp="two")
    with pytest.raises(BlendplanError, match=r"identity\.tp is .two.; expected a number"):
        read_proof(proof)
    for text, said in (('{"format": 3}', "format is 3"), ("[]", "not a JSON object")):
        (proof / "proof.json").write_text(text)
        with pytest.raises(BlendplanError, match=rf"proof\.json.*{said}"):
            read_proof(proof)


def _fit_catalogue(*words: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, PROJECT / "benchmarks" / "fit_catalogue.py", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(SOURCES), "PATH": ""},
    )


def test_the_catalogue_takes_a_proof_in(tables: Path, tmp_path: Path) -> None:
    """Of a GPU that nobody had measured; what is written there is a profile's tables."""
    proof = _proof(tmp_path / "proof", tables, machine=MACHINE | {"gpu": "h100-pcie-80g"})
    for name in ("gemm", "all_reduce"):
        path = proof / "kernels" / f"{name}.parquet"
        table = pq.read_table(path)
        assert set(table["gpu"].to_pylist()) == {LABEL}
        labels = pa.array(["h100-pcie-80g"] * len(table))
        pq.write_table(table.set_column(0, "gpu", labels), path)
    ran = _fit_catalogue("--proof", proof, "-o", tmp_path / "catalogue")
    assert ran.returncode == 0, ran.stderr
    (written,) = (tmp_path / "catalogue").iterdir()
    assert written.name == "h100-pcie-80g.toml"
    fitted = tomllib.loads(written.read_text())
    assert fitted["source"] == SOURCE
    gpu = replace(gpu_spec("h100-pcie-80g"), fitted=fitted)
    used = cost_model("calibrated", model_spec(MODEL), gpu, 4).parameters()
    assert used["measured"] == ["gemm", "all_reduce"]


def test_the_catalogue_takes_no_gpu_in_that_it_lacks(tables: Path, tmp_path: Path) -> None:
    proof = _proof(tmp_path / "proof", tables, machine=MACHINE | {"gpu": "nvidia-rtx-9090"})
    ran = _fit_catalogue("--proof", proof, "-o", tmp_path / "catalogue")
    assert ran.returncode == 1
    assert ran.stderr.startswith("error: ")
    assert "'nvidia-rtx-9090', which the catalogue lacks; add it to gpus.toml" in ran.stderr
    assert list((tmp_path / "catalogue").iterdir()) == []

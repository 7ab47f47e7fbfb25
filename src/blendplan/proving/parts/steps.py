"""Steps of the real engine against the cost model: prices are fitted, and held against others."""

from typing import Any

import pyarrow.parquet as pq

from blendplan.cost.calibration.from_steps import read_step_log, unknown_machine
from blendplan.hardware.gpu import GpuSpec
from blendplan.hardware.profile import write_profile
from blendplan.proving.bench import Bench
from blendplan.proving.calibration import calibrate_proof
from blendplan.proving.measurements import read_proof
from blendplan.proving.priced_steps import priced_steps
from blendplan.whole_file import replacing

# Requests of a job of steps.
REQUESTS = 400


def measure(bench: Bench) -> dict[str, Any]:
    """Run two jobs of steps: prices are fitted to one and tried on the other.

    Returns:
        ``fit``, the prices; ``held_out``, how far they are off on the other job, see
        `PricedSteps.as_dict`; ``catalogue``, the same of the prices that the package ships, None
        where there is no GPU; ``between``, what passes between steps.
    """
    first = _run(bench, 0)
    bench.measured_capacity(first)
    log = bench.step_log("steps-0")
    with replacing(bench.folder.steps) as temporary:
        pq.write_table(pq.read_table(log), temporary)
    base = bench.catalogue_gpu or unknown_machine(bench.folder.path.name)
    measured = read_proof(bench.folder.path)
    profile, _ = calibrate_proof(measured, base, bench.model, tp=bench.settings.tp)
    write_profile(profile, bench.folder.profile)
    second = _run(bench, 1)
    return {
        "runs": [first, second],
        "fit": dict(profile.fitted["steps"]),
        "held_out": priced(bench, "steps-1", profile),
        "catalogue": priced(bench, "steps-1", bench.catalogue_gpu),
        "between": between_steps(bench, "steps-1"),
    }


def priced(bench: Bench, name: str, gpu: GpuSpec | None) -> dict[str, Any] | None:
    """How far the prices of a GPU are off on the steps of a run; None without a GPU."""
    if gpu is None:
        return None
    table = bench.machine(gpu).table
    return priced_steps(read_step_log(bench.step_log(name)), table).as_dict()


def between_steps(bench: Bench, name: str) -> dict[str, Any]:
    """Time that passes between the steps of a run: launches, and the engine's own work."""
    log = bench.step_log(name)
    whole_s = float(read_step_log(log).time_s.sum())
    own_s = float(pq.read_table(log, columns=["time_s"])["time_s"].to_numpy().sum())
    return {"whole_s": whole_s, "share": max(0.0, 1.0 - own_s / whole_s)}


def _run(bench: Bench, number: int) -> dict[str, Any]:
    requests = bench.job("steps", REQUESTS, seed=number)
    made = bench.plan(requests, "fcfs")
    return bench.run(made, f"steps-{number}")

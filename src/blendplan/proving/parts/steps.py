"""Steps of the real engine against the cost model: prices are fitted, and held against others."""

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from blendplan.cost.calibration.from_steps import read_step_log, unknown_machine
from blendplan.cost.launches import LAUNCHES
from blendplan.hardware.gpu import GpuSpec
from blendplan.hardware.profile import write_profile
from blendplan.proving.bench import Bench
from blendplan.proving.calibration import calibrate_proof
from blendplan.proving.measurements import read_proof
from blendplan.proving.priced_steps import priced_steps
from blendplan.whole_file import replacing

# Requests of a job of steps.
REQUESTS = 300
# Runs that prices are fitted to, by policy and by which part of the largest step they have: a few
# large steps of prefill before all others, many small ones, and a little prefill in most of them.
FITTED = (("fcfs", 1), ("fcfs", 16), ("blend", 1))
TRIED = ("fcfs", 4)
_SMALLEST = 64


def measure(bench: Bench) -> dict[str, Any]:
    """Run two jobs of steps: prices are fitted to one, in several orders, and tried on the other.

    Returns:
        ``fit``, the prices; ``held_out``, how far they are off on the other job, see
        `PricedSteps.as_dict`; ``catalogue``, the same of the prices that the package ships, None
        where there is no GPU; ``between``, what passes between steps.
    """
    # An engine's first steps compile and tune kernels.
    bench.measured_capacity(_run(bench, "steps-start", *FITTED[0]))
    runs = [_run(bench, f"steps-{number}", *how) for number, how in enumerate(FITTED)]
    logs = [pq.read_table(bench.step_log(f"steps-{number}")) for number in range(len(FITTED))]
    with replacing(bench.folder.steps) as temporary:
        pq.write_table(pa.concat_tables(logs), temporary)
    base = bench.catalogue_gpu or unknown_machine(bench.folder.path.name)
    measured = read_proof(bench.folder.path)
    profile, _ = calibrate_proof(measured, base, bench.model, tp=bench.settings.tp)
    write_profile(profile, bench.folder.profile)
    runs.append(_run(bench, "steps-tried", *TRIED, seed=1))
    return {
        "runs": runs,
        "fit": dict(profile.fitted.get(LAUNCHES) or profile.fitted["steps"]),
        "held_out": priced(bench, "steps-tried", profile),
        "catalogue": priced(bench, "steps-tried", bench.catalogue_gpu),
        "between": between_steps(bench, "steps-tried"),
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


def _run(bench: Bench, name: str, policy: str, part: int, seed: int = 0) -> dict[str, Any]:
    """A run with steps of the largest size, or of a part of it."""
    most = max(bench.settings.batched_tokens)
    requests = bench.job("steps", REQUESTS, seed=seed)
    tokens = min(most, max(_SMALLEST, most // part))
    return bench.run(bench.plan(requests, policy, batched_tokens=tokens), name)

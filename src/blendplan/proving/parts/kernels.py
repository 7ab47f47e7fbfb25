"""Times of the GPU's kernels: measured in a process of its own, and held against those shipped."""

import subprocess
import sys
from typing import Any

from blendplan.checks.json_files import parse_json_object, read_text
from blendplan.cost.calibration.from_kernels import calibrate_kernels
from blendplan.cost.calibration.operator_fits import enough, fits, foretell
from blendplan.cost.calibration.search import mean_absolute_share
from blendplan.errors import BlendplanError
from blendplan.proving.bench import Bench
from blendplan.proving.gpu.sections import MACHINE

_SHARE_OF_TIME = 0.2


def measure(bench: Bench) -> dict[str, Any]:
    """Measure the kernels and fit operator models to them.

    Returns:
        ``machine``; ``fits``, by operator, dtype and kernel: rows, the error of the fit, and the
        error of the parameters that are shipped, None where there are none; ``overlap`` and
        ``launch``, as measured, None where they are not.

    Raises:
        BlendplanError: nothing could be measured.
    """
    folder, gpu = bench.folder.kernels, bench.catalogue_gpu
    assert gpu is not None
    limit_s = max(10.0, _SHARE_OF_TIME * bench.clock.left_s / 4)
    bench.progress("measuring kernels", 0, 0)
    module = "blendplan.proving.gpu"
    words = [sys.executable, "-m", module, "--out", str(folder), "--seconds", f"{limit_s:.0f}"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if not (folder / MACHINE).exists():
        why = (done.stderr.strip() or done.stdout.strip() or "no reason was given").splitlines()[-1]
        raise BlendplanError(f"kernels cannot be measured: {why.removeprefix('error: ')}")
    _, reports = calibrate_kernels(folder, gpu)
    shipped = {
        (fit.operator, fit.dtype, fit.path[-1]): _shipped_error(gpu.fitted, fit)
        for fit in fits(folder, gpu)
        if enough(fit)
    }
    return {
        "machine": _json(folder / MACHINE),
        "failed": done.returncode != 0,
        "fits": [
            report._asdict()
            | {"shipped_error_share": shipped.get((report.operator, report.dtype, report.kernel))}
            for report in reports
        ],
        "overlap": _json(folder / "overlap_fit.json"),
        "launch": _json(folder / "launch.json"),
    }


def _shipped_error(fitted: Any, fit: Any) -> float | None:
    """Mean error of the shipped parameters of the kernel, or of the one that is planned with."""
    place: Any = fitted.get(fit.operator, {})
    for step in fit.path[:-1]:
        place = place.get(step, {})
    tables = {name: table for name, table in place.items() if isinstance(table, dict)}
    table = tables.get(fit.path[-1]) or next(iter(tables.values()), None)
    if table is None:
        return None
    return mean_absolute_share(foretell(fit, table, fit.rows), fit.rows.time_s)


def _json(path: Any) -> dict[str, Any] | None:
    return parse_json_object(read_text(path, str(path), ""), str(path)) if path.exists() else None

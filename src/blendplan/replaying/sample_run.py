"""`run_sample`: run a few of the requests for real, to learn how long their outputs are."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from blendplan.engines.launch import check_options, launch_unplanned
from blendplan.engines.registry import ENGINES
from blendplan.errors import BlendplanError
from blendplan.lengths.earlier_results import read_results
from blendplan.lengths.predicted import Total
from blendplan.lengths.sample import choose_sample
from blendplan.lengths.totals import total_interval
from blendplan.planning.planner import plan
from blendplan.replaying.job import job_of_requests
from blendplan.replaying.run import Replayed, replay, run_job
from blendplan.requests.columns import Requests, select
from blendplan.tree.build import build_tree

# What an engine that is made from a plan simulates where nobody has said.
_ANY_GPU = "a100-80g"


def run_sample(
    requests: Requests,
    engine: str,
    output: Path | str,
    *,
    fraction: float = 0.01,
    seed: int = 0,
    model: str | None = None,
    engine_args: Mapping[str, Any] | None = None,
    flags: Sequence[str] = (),
    pdmux: bool = False,
    step_log: Path | None = None,
    **options: Any,
) -> Replayed:
    """Choose a sample of the requests and run it.

    A sample is too small for its order to matter: it runs depth-first, as fast as the engine takes
    it, within the engine's own limits and with its own CUDA graphs. Nothing is planned for it. The
    results file serves ``lengths="sample:FILE"`` of `plan`, and `replay` takes its answers over
    with ``already``, so that nothing runs twice.

    Args:
        requests: all of them.
        engine, output: as of `replay`; the engine must be a real one to learn anything.
        fraction, seed: as of `choose_sample`.
        model: name or directory of the model, which a real engine must be told.
        engine_args, flags, pdmux, step_log, options: further arguments of `replay`.

    Raises:
        BlendplanError: as `choose_sample` and `replay`.
    """
    kind, path = ENGINES.get(engine), Path(output)
    arguments, log_steps = engine_args or {}, step_log is not None
    check_options(engine, kind, arguments=arguments, flags=flags, pdmux=pdmux, log_steps=log_steps)
    rows = choose_sample(build_tree(requests), requests, fraction, seed)
    chosen = select(requests, rows)
    if kind.needs_plan:
        made = plan(chosen, gpu=_ANY_GPU, policy="dfs")
        return replay(made, engine, path, model=model, step_log=step_log, **options)
    if model is None and kind.loads_model:
        raise BlendplanError(f"{kind.title} needs a model to run a sample with; give --model NAME")
    return run_job(
        job_of_requests(chosen, kind),
        engine,
        path,
        launch_unplanned(
            model or "",
            arguments,
            flags=flags,
            pdmux=pdmux,
            log_steps=log_steps,
            output=path,
        ),
        step_log=step_log,
        **options,
    )


def sampled_total(requests: Requests, results: Path) -> Total:
    """What the results of a sample say of the output tokens of all requests.

    Args:
        requests: all of them.
        results: of the sample, one of which at least succeeded.

    Raises:
        BlendplanError: as `read_results`.
    """
    found = read_results(results)
    rows = found.rows_in(requests.ids)
    known = rows >= 0
    return total_interval(requests, build_tree(requests), rows[known], found.output_tokens[known])

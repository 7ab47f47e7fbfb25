"""`kept_plan`: the plan that `run` keeps beside its results, made once and found again."""

import hashlib
import json
from dataclasses import fields
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from blendplan.checks.json_files import differing
from blendplan.cli.job import Job
from blendplan.cli.progress import Progress
from blendplan.errors import BlendplanError

if TYPE_CHECKING:
    from blendplan.planfile.opened import PlanParts

_KEY = "job"
# Options that are typed otherwise than their values are called.
_TYPED = {
    "files": "REQUESTS",
    "engine_args": "--engine-arg",
    "parameters": "--param",
    "replan": "--no-replan",
}
# Of a model's folder, what a plan depends on.
_MODEL_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def plan_path(output: Path) -> Path:
    """Where the plan of a job lies."""
    return output.with_name(f"{output.name}.plan.arrow")


def kept_plan(job: Job, policy: str, output: Path, progress: Progress) -> "PlanParts":
    """The plan beside the results: the one that is there where it is this job's, else a new one.

    Args:
        job: what to plan.
        policy: its policy.
        output: the results file.
        progress: of the command; gets the remarks of a new plan.

    Raises:
        BlendplanError: as `plan`; or results or a journal there belong to another job.
    """
    from blendplan.planfile.opened import open_plan
    from blendplan.replaying.journal import journal_path

    if "-" in job.files:
        raise BlendplanError(
            "what is piped in cannot be read again when the run is continued; write the requests "
            "to a file, or use plan and replay"
        )
    path, identity = plan_path(output), _identity(job, policy)
    if path.exists():
        progress.stage(f"reading {path.name}")
        opened = open_plan(path)
        changed = _differences(opened.metadata.get(_KEY), identity)
        if not changed:
            progress.line(f"planned before, see {path}")
            return opened
        begun = [one for one in (journal_path(output), output) if one.exists()]
        if begun:
            raise BlendplanError(
                f"{begun[0]} is of another job ({', '.join(changed)} changed since); give "
                "another -o, or move it away"
            )
    elif journal_path(output).exists():
        raise BlendplanError(
            f"{journal_path(output)} is of a run whose plan is not at {path}; continue it with "
            "`replay --resume`, or move it away"
        )
    _plan(job, policy, path, identity, progress)
    return open_plan(path)


def _plan(job: Job, policy: str, path: Path, identity: dict[str, Any], progress: Progress) -> None:
    from blendplan.planning.planner import plan
    from blendplan.report.quantities import duration

    started = perf_counter()
    read = job.read(progress)
    planned = plan(read.requests, policy=policy, progress=progress.report, **job.options)
    planned = planned.saying(serving=read.serving, **{_KEY: identity})
    progress.stage(f"writing {path.name}")
    planned.write(path)
    for note in job.notes(read, planned.metadata):
        progress.line(note)
    predicted = planned.metadata["predicted"]
    progress.line(
        f"planned in {duration(perf_counter() - started)}: {planned.requests:,} requests, makespan "
        f"{duration(predicted['makespan_s'])}, {planned.metadata['bound_ratio']:.1%} of what any "
        f"schedule could reach; see {path}"
    )


def _identity(job: Job, policy: str) -> dict[str, Any]:
    """All that the plan depends on, by option: values as JSON, and digests of files they name."""
    from blendplan.requests.inputs import find_inputs, sha256_of

    options = {one.name: getattr(job, one.name) for one in fields(job) if one.name != "options"}
    del options["stated_rejects"], options["shape"]
    options |= {**job.shape, **job.options, "policy": policy}
    stated: dict[str, Any] = json.loads(json.dumps(options, default=str))
    model = Path(str(job.options["model"]))
    _, _, results = str(job.options["lengths"]).partition(":")
    stated["files"] = [sha256_of(one) for one in find_inputs(job.files)]
    named = {
        "gpu": [Path(str(job.options["gpu"]))],
        "lengths": [Path(results)] if results else [],
        "model": [model / name for name in _MODEL_FILES] if model.is_dir() else [model],
    }
    for option, paths in named.items():
        digests = [_sha256(path) for path in paths if path.is_file()]
        if digests:
            stated[option] = [stated[option], *digests]
    return stated


def _differences(before: object, now: dict[str, Any]) -> list[str]:
    """The options that differ, as they are typed; something, at any rate, where it is no job."""
    if not isinstance(before, dict):
        return ["the command"]
    names = differing(now, before)
    return [_TYPED.get(name, f"--{name.replace('_', '-')}") for name in names]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

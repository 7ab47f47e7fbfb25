"""`Job`: the requests of a planning command and what they are planned for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from blendplan.cli.destination import check_destinations
from blendplan.cli.options import MACHINE, SERVERS, Decorator, planning_options, screening_engine
from blendplan.cli.shaping import shaping
from blendplan.errors import BlendplanError

if TYPE_CHECKING:
    from blendplan.cli.progress import Progress
    from blendplan.cost.machine import Machine
    from blendplan.requests.columns import Requests

_HOW = ("replicas", "lengths", "preserve_sharing", "seed", "effort", "replan")


@dataclass(frozen=True)
class Job:
    """Where requests come from, and the keyword arguments of `plan` and `compare`.

    Attributes:
        files: the request files as they were given: paths, folders, globs, addresses, or "-".
        on_error: ``fail`` or ``skip``.
        stated_rejects: where ``skip`` writes what it leaves out, None for the usual place.
        options: keyword arguments.
        shape: what becomes of rows and lines, as arguments of `read_requests`.
        dedupe: whether identical requests run once, see `run_once`.
        engine: the engine that will run the requests, None where that is open.
        engine_args: its own arguments.
    """

    files: tuple[str, ...]
    on_error: str
    stated_rejects: Path | None
    options: dict[str, Any]
    shape: Mapping[str, Any] = field(default_factory=dict)
    dedupe: bool = False
    engine: str | None = None
    engine_args: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What is read, in a word or two."""
        if self.files == ("-",):
            return "standard input"
        return Path(self.files[0]).name if len(self.files) == 1 else f"{len(self.files)} files"

    @property
    def paths(self) -> list[Path]:
        """The words for what is read, as paths, which some of them are."""
        return [Path(word) for word in self.files]

    @cached_property
    def rejects(self) -> Path:
        """Where ``skip`` writes what it leaves out."""
        from blendplan.requests.read import rejects_path

        return rejects_path(self.files, self.stated_rejects)

    def check(self, *outputs: Path | None) -> None:
        """Raise now what would otherwise be found wrong after a long file was read.

        Raises:
            BlendplanError: an output that cannot be written, a model that does not fit the GPU.
        """
        _, _, results = self.options["lengths"].partition(":")
        written = (*outputs, self.rejects if self.on_error == "skip" else None)
        check_destinations(written, inputs=(*self.paths, Path(results) if results else None))
        self.target  # noqa: B018  raises

    @cached_property
    def target(self) -> "Machine":
        """The machine to plan for.

        Raises:
            BlendplanError: as `machine`.
        """
        from blendplan.cost.machine import machine

        return machine(**{name: self.options[name] for name in MACHINE})

    def read(self, progress: "Progress") -> "JobRequests":
        """All requests that can run.

        Raises:
            BlendplanError: with ``fail``, one is bad, or the engine would refuse some.
        """
        from blendplan.requests.read import read_requests

        progress.stage(f"reading {self.name}")
        model_dir = Path(self.options["model"])
        requests = read_requests(
            self.files,
            model_dir=model_dir if model_dir.is_dir() else None,
            on_error="skip" if self.on_error == "skip" else "fail",
            rejects=self.rejects,
            progress=progress.advance,
            **self.shape,
        )
        remarks: list[str] = []
        serving = None
        if self.engine in SERVERS:
            progress.stage(f"asking what {self.engine} would refuse")
            requests, remarks, serving = self._screened(requests, self.engine)
        if self.on_error == "skip":
            requests = self._without_too_long(requests)
        if self.dedupe:
            from blendplan.requests.repeats import run_once

            requests = run_once(requests)
        return JobRequests(requests, remarks, serving)

    def _without_too_long(self, requests: "Requests") -> "Requests":
        from blendplan.requests.context import over_context, within_context
        from blendplan.requests.fitting import over_kv_cache
        from blendplan.requests.rejected import leave_out

        longest, fits = self.target.max_model_len, self.target.longest_request
        requests = leave_out(requests, over_context(requests, longest), self.rejects)
        requests = within_context(requests, longest)
        return leave_out(requests, over_kv_cache(requests, fits), self.rejects)

    def _screened(
        self, requests: "Requests", engine: str
    ) -> tuple["Requests", list[str], dict[str, Any]]:
        """Requests that the engine's server takes, remarks, and what the plan says of it."""
        from blendplan.engines.screening.screen import counted, screen
        from blendplan.engines.screening.server import server_of
        from blendplan.requests.rejected import leave_out

        target, arguments = self.target, dict(self.engine_args)
        server, names = server_of(
            self.options["model"],
            target.max_model_len,
            target.limits.max_num_seqs,
            target.model.vocab,
            arguments,
        )
        found = screen(requests, engine, server, model=self.options["model"], names=names)
        serving = {"engine": engine, "arguments": arguments, "checked_by": found.checked_by}
        if not found.refusals:
            return found.requests, found.remarks, serving
        what = (
            f"{found.checked_by} refuses {len(found.refusals):,} of {len(requests):,} requests: "
            f"{counted(requests, found.refusals)}"
        )
        if self.on_error == "fail":
            raise BlendplanError(
                f"{requests.source}: {what}; --on-error skip leaves such requests out"
            )
        if len(found.refusals) == len(requests):
            raise BlendplanError(f"{requests.source}: {what}; none is left to plan")
        taken = leave_out(found.requests, found.refusals, self.rejects)
        return taken, [what, *found.remarks], serving

    def notes(self, read: "JobRequests", metadata: dict[str, Any]) -> list[str]:
        """What the user should know of the input, one line each."""
        seen = [*read.remarks, *_left_out(read.requests.rejected, self.rejects)]
        return [*seen, *read.requests.remarks, *notes_of(metadata)]


def _left_out(requests: int, rejects: Path) -> list[str]:
    if not requests:
        return []
    where = f", see {rejects}" if rejects.is_file() else "; without --dry-run, they are written"
    return [f"left out {requests} bad or too long requests{where}"]


def notes_of(metadata: dict[str, Any], rejects: Path | None = None) -> list[str]:
    """What the user should know of a plan, one line each.

    Args:
        metadata: of the plan.
        rejects: where what it leaves out is, to be told too.
    """
    notes = []
    if rejects is not None:
        notes += _left_out(metadata.get("rejected", {}).get("requests", 0), rejects)
    shape = metadata.get("model_shape") or {}
    notes.extend(f"model {metadata['model']}: {remark}" for remark in shape.get("remarks", ()))
    if repeats := metadata.get("repeats"):
        notes.append(
            f"{repeats['requests']:,} requests are identical to others and do not run, which saves "
            f"{repeats['prompt_tokens']:,} prompt tokens and about {repeats['output_tokens']:,.0f} "
            "output tokens"
        )
    if metadata["cost_model"]["note"]:
        notes.append(metadata["cost_model"]["note"])
    if metadata["lengths"]["note"]:
        notes.append(metadata["lengths"]["note"])
    if metadata["lengths"]["estimated_prompts"]:
        notes.append(
            "prompt lengths are estimates of four bytes a token; "
            "--model DIR with a tokenizer counts them"
        )
    return notes


class JobRequests(NamedTuple):
    """What was read for a job.

    Attributes:
        requests: all that can run.
        remarks: what the engine makes of them, a line each.
        serving: the engine that they were checked for, as the plan says it; None without one.
    """

    requests: "Requests"
    remarks: list[str]
    serving: dict[str, Any] | None


def planning(engine_option: Decorator = screening_engine) -> Decorator:
    """Add request files and the shared options to a command; it gets them as ``job``.

    Args:
        engine_option: its ``--engine``.
    """

    def with_job(function: Callable[..., None]) -> Callable[..., None]:
        @wraps(function)
        def command(
            *args: Any,
            files: tuple[str, ...],
            on_error: str,
            rejects: Path | None,
            shape: dict[str, Any],
            dedupe: bool,
            engine: str | None,
            engine_args: dict[str, Any],
            **options: Any,
        ) -> None:
            planned = {name: options.pop(name) for name in (*MACHINE, *_HOW)}
            job = Job(files, on_error, rejects, planned, shape, dedupe, engine, engine_args)
            function(*args, job=job, **options)

        return planning_options(shaping(command), engine_option)

    return with_job

"""`Job`: the requests of a planning command and what they are planned for."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blendplan.cli.destination import check_destinations
from blendplan.cli.options import MACHINE, planning_options

if TYPE_CHECKING:
    from blendplan.cli.progress import Progress
    from blendplan.cost.machine import Machine
    from blendplan.requests.columns import Requests

_HOW = ("replicas", "lengths", "preserve_sharing", "seed", "effort", "replan")


@dataclass(frozen=True)
class Job:
    """Where requests come from, and the keyword arguments of `plan` and `compare`.

    Attributes:
        path: the request file.
        on_error: ``fail`` or ``skip``.
        rejects: where ``skip`` writes what it leaves out.
        options: keyword arguments.
        prompt_column: the field or column that holds the prompts, None for the usual ones.
    """

    path: Path
    on_error: str
    rejects: Path
    options: dict[str, Any]
    prompt_column: str | None = None

    def check(self, *outputs: Path | None) -> None:
        """Raise now what would otherwise be found wrong after a long file was read.

        Raises:
            BlendplanError: an output that cannot be written, a model that does not fit the GPU.
        """
        _, _, results = self.options["lengths"].partition(":")
        written = (*outputs, self.rejects if self.on_error == "skip" else None)
        check_destinations(written, inputs=(self.path, Path(results) if results else None))
        self.target  # noqa: B018  raises

    @cached_property
    def target(self) -> "Machine":
        """The machine to plan for.

        Raises:
            BlendplanError: as `machine`.
        """
        from blendplan.cost.machine import machine

        return machine(**{name: self.options[name] for name in MACHINE})

    def read(self, progress: "Progress") -> "Requests":
        """All good requests."""
        from blendplan.requests.read import read_requests

        progress.stage(f"reading {self.path.name}")
        model_dir = Path(self.options["model"])
        requests = read_requests(
            self.path,
            model_dir=model_dir if model_dir.is_dir() else None,
            on_error="skip" if self.on_error == "skip" else "fail",
            rejects=self.rejects,
            progress=progress.advance,
            prompt_column=self.prompt_column,
        )
        if self.on_error == "fail":
            return requests
        from blendplan.requests.fitting import leave_out_too_long

        return leave_out_too_long(requests, self.target.limits.kv_tokens, self.rejects)

    def notes(self, requests: "Requests", metadata: dict[str, Any]) -> list[str]:
        """What the user should know of the input, one line each."""
        notes = []
        if requests.rejected:
            notes.append(
                f"left out {requests.rejected} bad or too long requests, see {self.rejects}"
            )
        notes.extend(requests.remarks)
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


def planning(function: Callable[..., None]) -> Callable[..., None]:
    """Add the request file and the shared options to a command; it gets them as ``job``."""

    @planning_options
    @wraps(function)
    def command(
        *args: Any,
        requests_file: Path,
        on_error: str,
        rejects: Path | None,
        prompt_column: str | None,
        **options: Any,
    ) -> None:
        planned = {name: options.pop(name) for name in (*MACHINE, *_HOW)}
        rejects = rejects or requests_file.with_name(f"{requests_file.name}.rejects.jsonl")
        function(
            *args, job=Job(requests_file, on_error, rejects, planned, prompt_column), **options
        )

    return command

"""`EngineKind`: what is known of an engine before it is started."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from blendplan.engines.protocol import Engine, Launch, Session
from blendplan.engines.words import not_installed

if TYPE_CHECKING:
    from blendplan.planfile.plan import Plan


@dataclass(frozen=True)
class EngineKind:
    """One engine of the registry: how it is started, and what may be asked of it.

    Whatever the rest of blendplan decides by which engine it is, it decides by these.

    Attributes:
        title: what messages call the engine.
        summary: what ``--help`` says of it, a few words.
        start: starts it for a plan of one replica, or for requests without a plan, with what is
            left to run. An engine that may die runs in a process of its own: see
            `blendplan.engines.process.EngineProcess`.
        package: Python package that it is; empty where there is none to install.
        needs_results: whether a run without a results file makes no sense.
        needs_plan: whether it is made from a plan, and cannot run requests that nobody planned.
        loads_model: whether it loads the weights of a model, by their published name or from a
            folder.
        takes_arguments: whether users may give it arguments of its own.
        spatial_sharing: whether it can share the GPU in space between prefill and decode.
        step_log: whether it tells what each step computes.
        reusable: whether an engine that has run a plan can run another one, see `KeptEngine`.
        tested: versions that blendplan was tested with, as `Capacity.version` has them.
    """

    title: str
    summary: str
    start: Callable[["Plan | None", Launch, Session], Engine]
    package: str = ""
    needs_results: bool = True
    needs_plan: bool = False
    loads_model: bool = True
    takes_arguments: bool = True
    spatial_sharing: bool = False
    step_log: bool = True
    reusable: bool = False
    tested: tuple[str, ...] = ()

    def check_installed(self) -> None:
        """Find out whether the engine's package is there, without importing it.

        Raises:
            BlendplanError: it is not.
        """
        if self.package and find_spec(self.package) is None:
            raise not_installed(self.title, self.package)

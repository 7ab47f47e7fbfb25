"""`EngineKind`: what is known of an engine before it is started."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from blendplan.engines.protocol import Engine, Launch, Session
from blendplan.engines.words import not_installed

if TYPE_CHECKING:
    from blendplan.planfile.plan import Plan


@dataclass(frozen=True)
class OnCpu:
    """How an engine runs where there is no GPU: with a small model, the scheduling is real.

    Attributes:
        environment: variables that it needs.
        arguments: its own arguments.
        block_size: tokens of the smallest block of the KV cache there.
    """

    environment: Mapping[str, str] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    block_size: int = 16


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
        kv_cache: its own arguments for a KV cache of so many tokens in blocks of so many.
        memory_share: its own argument for the share of the GPU's memory that it takes.
        on_cpu: how it runs without a GPU.
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
    kv_cache: Callable[[int, int], dict[str, Any]] = lambda kv_tokens, block_size: {}
    memory_share: str = ""
    on_cpu: OnCpu = OnCpu()
    tested: tuple[str, ...] = ()

    def check_installed(self) -> None:
        """Find out whether the engine's package is there, without importing it.

        Raises:
            BlendplanError: it is not.
        """
        if self.package and find_spec(self.package) is None:
            raise not_installed(self.title, self.package)

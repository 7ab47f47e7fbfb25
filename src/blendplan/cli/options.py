"""Options that commands share: what to plan for and how, and which engine runs the requests."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from blendplan.cli.key_values import key_values
from blendplan.cli.names import CatalogueName, Name, NameOption
from blendplan.cli.partners import DependentOption
from blendplan.cli.ranges import Share, within
from blendplan.cost.registry import COST_MODELS
from blendplan.engines.registry import ENGINES
from blendplan.errors import BlendplanError
from blendplan.hardware.engine_limits import GPU_MEMORY_UTILIZATION, LIMITS, EngineLimits
from blendplan.lengths.registry import AUTO, length_methods, predictor_of
from blendplan.policy.registry import DEFAULT, POLICIES

if TYPE_CHECKING:
    from blendplan.replaying.cluster.options import Cluster

Decorator = Callable[[Callable[..., None]], Callable[..., None]]

SERVERS = ("vllm", "sglang")
"""Engines whose servers' treatment of requests is known before they are started."""

KV_DTYPES = ("auto", "bf16", "fp16", "fp8")

# Options that describe the machine; the keyword arguments of `blendplan.cost.machine.machine`.
MACHINE = (
    "gpu",
    "model",
    "tp",
    "overlap",
    "cost",
    *LIMITS,
    "max_model_len",
    "gpu_memory_utilization",
    "kv_dtype",
)

FILE = click.Path(path_type=Path)


def _overlap(ctx: click.Context, param: click.Parameter, value: float) -> float:
    if math.isnan(value) or value < 1:
        raise click.BadParameter(f"{value} is not a number from 1 to inf", ctx, param)
    return value


def _lengths(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if value != AUTO:  # which alone is known to be right without importing a predictor
        try:
            predictor_of(value)
        except BlendplanError as error:
            raise click.UsageError(str(error), ctx) from None
    return value


class _LengthsOption(click.Option):
    """Names the methods when its help is shown."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        self.help = (self.help or "").replace("{names}", ", ".join(length_methods()))
        return super().get_help_record(ctx)


# Of `run` and `replay`.
already_option = click.option(
    "--already", type=FILE, metavar="FILE", help="Results to take over, such as a sample's."
)

# Of `plan`, `run` and `trial`.
policy_option = click.option(
    "--policy",
    cls=NameOption,
    default=DEFAULT,
    show_default=True,
    type=Name("policy", POLICIES),
    metavar="NAME",
    help="Which request goes next: {names}.",
)

# Of `plan`, `compare`, `run` and `replay`.
no_replan = click.option(
    "--no-replan",
    "replan",
    is_flag=True,
    flag_value=False,
    default=True,
    help="Do not learn output lengths while the requests run.",
)


_FILES = click.argument("files", metavar="REQUESTS...", nargs=-1, required=True, type=click.Path())

# Of commands that plan only.
screening_engine = click.option(
    "--engine",
    type=Name("engine", SERVERS),
    metavar="NAME",
    help=f"Engine that will run the requests, {' or '.join(SERVERS)}: says which of them its "
    "server would refuse, and why.",
)

_PLANNING = (
    click.option(
        "--gpu",
        required=True,
        type=CatalogueName("GPU", "gpus"),
        metavar="NAME",
        help="GPU to plan for, or a TOML file that describes one; see 'blendplan gpus'.",
    ),
    click.option(
        "--model",
        default="llama-3.1-8b",
        show_default=True,
        type=CatalogueName("model", "models"),
        metavar="NAME",
        help="Model, or a folder with its config.json and tokenizer; see 'blendplan models'.",
    ),
    click.option(
        "--tp",
        default=1,
        show_default=True,
        type=within("tp"),
        metavar="N",
        help="GPUs that share the model (tensor parallel).",
    ),
    click.option(
        "--replicas",
        default=1,
        show_default=True,
        type=within("replicas"),
        metavar="N",
        help="Engines that share the requests (data parallel), each on its own GPUs.",
    ),
    click.option(
        "--overlap",
        default=1.0,
        show_default=True,
        callback=_overlap,
        type=float,
        metavar="Q",
        help="How well the engine overlaps compute and memory: 1 not at all (stock vLLM and "
        "SGLang), 2 operator by operator, inf perfectly.",
    ),
    click.option(
        "--cost",
        default="calibrated",
        show_default=True,
        type=Name("cost model", COST_MODELS),
        metavar="NAME",
        cls=NameOption,
        help="Cost model: {names}. Calibrated is fitted to measured kernels, datasheet has the "
        "paper's formulas.",
    ),
    click.option(
        "--lengths",
        default=AUTO,
        show_default=True,
        callback=_lengths,
        metavar="METHOD",
        cls=_LengthsOption,
        help="Output lengths: {names}; METHOD:FILE where they are learned from the results of "
        "earlier runs.",
    ),
    click.option(
        "--engine-arg",
        "engine_args",
        cls=DependentOption,
        needs="--engine NAME",
        multiple=True,
        callback=key_values,
        metavar="KEY=VALUE",
        help="Argument that this engine will be started with, as for replay. May be given several "
        "times.",
    ),
    click.option(
        "--on-error",
        default="fail",
        show_default=True,
        type=Name("way to treat bad requests", ("fail", "skip")),
        metavar="fail|skip",
        help="Stop at a bad request before any work is done, or leave it out.",
    ),
    click.option(
        "--rejects",
        cls=DependentOption,
        needs="--on-error skip",
        type=FILE,
        metavar="FILE",
        help="Where --on-error skip writes what it leaves out.  [default: REQUESTS.rejects.jsonl; "
        "requests.rejects.jsonl for several files; rejects.jsonl in the plan's folder]",
    ),
    click.option(
        "--dedupe",
        is_flag=True,
        help="Run identical requests once, where their answers are the same by what they ask: at "
        "temperature 0, or with a seed.",
    ),
    click.option(
        "--kv-tokens",
        type=within("kv_tokens"),
        metavar="N",
        help="Capacity of the KV cache.  [default: what the GPU's memory leaves]",
    ),
    click.option(
        "--max-num-seqs",
        default=EngineLimits.max_num_seqs,
        show_default=True,
        type=within("max_num_seqs"),
        metavar="N",
        help="Maximum number of requests that run at once.",
    ),
    click.option(
        "--max-num-batched-tokens",
        default=EngineLimits.max_num_batched_tokens,
        show_default=True,
        type=within("max_num_batched_tokens"),
        metavar="N",
        help="Maximum number of tokens in one step.",
    ),
    click.option(
        "--block-size",
        default=EngineLimits.block_size,
        show_default=True,
        type=within("block_size"),
        metavar="N",
        help="Tokens in one block of the KV cache.",
    ),
    click.option(
        "--async-scheduling/--no-async-scheduling",
        default=EngineLimits.async_scheduling,
        show_default=True,
        help="Plan for an engine that schedules a step before the output of the last one is there, "
        "and replay on vLLM so.",
    ),
    click.option(
        "--max-model-len",
        type=within("max_model_len"),
        metavar="N",
        help="Longest context, prompt and output together.  [default: the model's]",
    ),
    click.option(
        "--gpu-memory-utilization",
        default=GPU_MEMORY_UTILIZATION,
        show_default=True,
        type=Share(above_zero=True),
        metavar="SHARE",
        help="Share of the GPU's memory that the engine may use.",
    ),
    click.option(
        "--kv-dtype",
        default="auto",
        show_default=True,
        type=Name("KV-cache type", KV_DTYPES),
        metavar="TYPE",
        help=f"Element type of the KV cache: {', '.join(KV_DTYPES)}.",
    ),
    click.option(
        "--preserve-sharing",
        default=0.99,
        show_default=True,
        type=Share(),
        metavar="SHARE",
        help="Share of the possible prefix sharing that sorting by density must keep.",
    ),
    click.option(
        "--seed",
        default=0,
        show_default=True,
        type=within("seed"),
        metavar="N",
        help="Seed for everything that is random.",
    ),
    click.option(
        "--effort",
        default=1,
        show_default=True,
        type=within("effort"),
        metavar="N",
        help="How many sets of parameters of the policy to simulate before one is chosen.",
    ),
    no_replan,
)


def planning_options(function: Callable[..., None], engine: Decorator) -> Callable[..., None]:
    """Add the request files and the shared options, in the order of `--help`.

    Args:
        function: the command.
        engine: its option ``--engine``.
    """
    return _with(function, (_FILES, engine, *_PLANNING))


_LOADING = (
    click.option(
        "--model",
        metavar="NAME",
        help="Model to load, by its Hugging Face name or folder; a replay takes the plan's by "
        "default.",
    ),
    click.option(
        "--engine-arg",
        "engine_args",
        multiple=True,
        callback=key_values,
        metavar="KEY=VALUE",
        help="Argument of the engine by its own name, with its value as JSON; overrides the "
        "plan's. May be given several times.",
    ),
    click.option("--resume", is_flag=True, help="Continue an interrupted run."),
)

_RUNNING = (
    click.option(
        "--order",
        cls=DependentOption,
        needs="-o FILE",
        default="input",
        show_default=True,
        type=Name("order of results", ("input", "finish")),
        metavar="input|finish",
        help="Order of the results: that of the request file, written at the end, or as requests "
        "finish.",
    ),
    click.option(
        "--retries",
        default=2,
        show_default=True,
        type=within("retries"),
        metavar="N",
        help="How many times to retry a request that failed.",
    ),
    click.option(
        "--pdmux",
        is_flag=True,
        help="Split the GPU spatially between prefill and decode, where the engine can.",
    ),
    click.option("--step-log", type=FILE, metavar="FILE", help="Log every step (Parquet)."),
    click.option("--request-log", type=FILE, metavar="FILE", help="Log every request (Parquet)."),
)


_CLUSTER = (
    click.option(
        "--ray",
        metavar="ADDRESS",
        help="Run all replicas of the plan on a Ray cluster: auto for that of this machine, local "
        "for one that is started for the run, or the address of one.",
    ),
    click.option(
        "--replicas-max",
        cls=DependentOption,
        needs="--ray ADDRESS",
        type=within("replicas_max"),
        metavar="N",
        help="Most engines on the cluster; more than fit now take part when there is room.  "
        "[default: the plan's, or as many as fit where it is for one]",
    ),
    click.option(
        "--gpus-per-replica",
        cls=DependentOption,
        needs="--ray ADDRESS",
        type=within("gpus_per_replica"),
        metavar="N",
        help="GPUs of each engine on the cluster.  [default: the plan's tensor parallelism]",
    ),
)


class EngineFlags(click.Command):
    """A command that gets what stands after ``--``, words of the engine's own, as ``flags``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = args[: args.index("--")] if "--" in args else args
        ctx.params["flags"] = tuple(args[len(own) + 1 :])
        return super().parse_args(ctx, own)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- ENGINE FLAGS]"]


def engine_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options that `replay` and `sample` share, by the names of `replay`."""
    return _with(running_options(function), _LOADING)


def running_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options of all that runs requests, by the names of `replay`."""
    return _with(function, _RUNNING)


def cluster_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options of what runs on a cluster."""
    return _with(function, _CLUSTER)


def cluster_of(
    ray: str | None, replicas_max: int | None, gpus_per_replica: int | None
) -> "Cluster | None":
    """The cluster that these options ask for, None without ``--ray``."""
    if ray is None:
        return None
    from blendplan.replaying.cluster.options import Cluster

    return Cluster(ray, replicas_max, gpus_per_replica)


def _with(function: Callable[..., None], options: tuple[Decorator, ...]) -> Callable[..., None]:
    for option in reversed(options):
        function = option(function)
    return function


class _EngineOption(NameOption):
    """Says of each engine what it is, when its help is shown."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        self.help = f"What runs the requests: {'; '.join(map(_described, ENGINES))}."
        return super().get_help_record(ctx)


def _described(name: str) -> str:
    try:
        return f"{name}, {ENGINES.get(name).summary}"
    except BlendplanError:  # of a third party, and broken: the error says so when it is asked for
        return name


def engine_option(**attributes: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The option ``--engine``; ``default`` or ``required`` is the command's."""
    return click.option(
        "--engine",
        cls=_EngineOption,
        type=Name("engine", ENGINES),
        metavar="NAME",
        **attributes,
    )

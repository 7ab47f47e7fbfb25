"""The options that `plan` and `compare` share: what to plan for, and how."""

import math
from collections.abc import Callable
from pathlib import Path

import click

from blendplan.cli.names import CatalogueName, Name, unknown
from blendplan.cli.ranges import Share, within

# Written down here because the modules that own them take too long to import for `--help`.
COST_MODELS = ("calibrated", "datasheet")
KV_DTYPES = ("auto", "bf16", "fp16", "fp8")

# Options that describe the machine; the keyword arguments of `blendplan.machine.machine`.
MACHINE = (
    "gpu",
    "model",
    "tp",
    "overlap",
    "cost",
    "kv_tokens",
    "max_num_seqs",
    "max_num_batched_tokens",
    "block_size",
    "gpu_memory_utilization",
    "kv_dtype",
)

FILE = click.Path(path_type=Path)
_LENGTH_METHODS = ("auto", "known", "prior", "sample:FILE", "history:FILE")


def _overlap(ctx: click.Context, param: click.Parameter, value: float) -> float:
    if math.isnan(value) or value < 1:
        raise click.BadParameter(f"{value} is not a number from 1 to inf", ctx, param)
    return value


def _lengths(ctx: click.Context, param: click.Parameter, value: str) -> str:
    method, colon, file = value.partition(":")
    if method in ("sample", "history") and colon and file:
        return value
    if method in ("sample", "history"):
        raise click.UsageError(f"--lengths {method} needs a results file: {method}:FILE", ctx)
    if value not in _LENGTH_METHODS:
        raise click.UsageError(unknown("length method", value, _LENGTH_METHODS), ctx)
    return value


_OPTIONS = (
    click.argument("requests_file", metavar="REQUESTS", type=FILE),
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
        help="Engines that share the requests (data parallel), each with GPUs of its own.",
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
        help="Cost model: calibrated, from measured kernels, or datasheet, the paper's formulas.",
    ),
    click.option(
        "--lengths",
        default="auto",
        show_default=True,
        callback=_lengths,
        metavar="METHOD",
        help="Output lengths: auto, known, prior, sample:FILE or history:FILE, FILE being the "
        "results of earlier runs.",
    ),
    click.option(
        "--on-error",
        default="fail",
        show_default=True,
        type=Name("way to treat bad requests", ("fail", "skip")),
        metavar="fail|skip",
        help="A bad request stops everything before any work, or is left out.",
    ),
    click.option(
        "--rejects",
        type=FILE,
        metavar="FILE",
        help="Where --on-error skip writes what it leaves out.  [default: REQUESTS.rejects.jsonl]",
    ),
    click.option(
        "--kv-tokens",
        type=within("kv_tokens"),
        metavar="N",
        help="Capacity of the KV cache.  [default: what the GPU's memory leaves]",
    ),
    click.option(
        "--max-num-seqs",
        default=1024,
        show_default=True,
        type=within("max_num_seqs"),
        metavar="N",
        help="Most requests that run at once.",
    ),
    click.option(
        "--max-num-batched-tokens",
        default=2048,
        show_default=True,
        type=within("max_num_batched_tokens"),
        metavar="N",
        help="Most tokens in one step.",
    ),
    click.option(
        "--block-size",
        default=16,
        show_default=True,
        type=within("block_size"),
        metavar="N",
        help="Tokens in one block of the KV cache.",
    ),
    click.option(
        "--gpu-memory-utilization",
        default=0.9,
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
        help="Seed of all that is random.",
    ),
    click.option(
        "--effort",
        default=1,
        show_default=True,
        type=within("effort"),
        help="How many settings of the policy blend to simulate before one is chosen.",
    ),
)


def planning_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the request file and the shared options, in the order that `--help` shows."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function

"""How SGLang is started for a plan: its own command line, as a user would write it."""

import argparse
import json
from collections.abc import Iterable
from typing import Any

from blendplan.engines.protocol import Launch
from blendplan.errors import BlendplanError
from blendplan.hardware.engine_limits import GPU_MEMORY_UTILIZATION
from blendplan.names import did_you_mean

_KV_DTYPES = {"bf16": "bf16", "fp16": "auto", "fp8": "fp8_e4m3"}
# What enable_pdmux requires (sglang/srt/arg_groups).
_SPATIAL = {
    "enable_pdmux": True,
    "chunked_prefill_size": -1,
    "disable_overlap_schedule": True,
    "enable_mixed_chunk": False,
}
# What a scheduler that follows a plan cannot do without.
_PLANNED = {
    "schedule_policy": "fcfs",
    "dp_size": 1,
    "pp_size": 1,
    "tokenizer_worker_num": 1,
    "disaggregation_mode": "null",
    "use_ray": False,
    "enable_pd_role_switch": False,
}


def own_arguments(launch: Launch) -> dict[str, Any]:
    """What a plan asks of SGLang, by the names of its arguments."""
    arguments: dict[str, Any] = {
        "model_path": launch.model,
        "schedule_policy": "fcfs",
        # Prefill and decode in one batch: without it they take turns and nothing blends.
        "enable_mixed_chunk": True,
        "enable_cache_report": True,
        "tp_size": launch.tp,
        "log_level": "warning",
    }
    if launch.limits is not None:
        arguments["max_running_requests"] = launch.limits.max_num_seqs
        arguments["chunked_prefill_size"] = launch.limits.max_num_batched_tokens
        arguments["max_prefill_tokens"] = launch.limits.max_num_batched_tokens
    # By itself, SGLang leaves as much as it needs beside weights and KV cache.
    if launch.gpu_memory_utilization not in (None, GPU_MEMORY_UTILIZATION):
        arguments["mem_fraction_static"] = launch.gpu_memory_utilization
    if launch.kv_dtype != "auto":
        arguments["kv_cache_dtype"] = _KV_DTYPES.get(launch.kv_dtype, launch.kv_dtype)
    if launch.lacks_tokenizer():
        arguments["skip_tokenizer_init"] = True
    graphs = launch.graphs.get("sglang")
    if graphs is not None and not _says_graphs(launch):
        arguments["cuda_graph_bs_decode"] = graphs.decode
        if not launch.pdmux:
            arguments["cuda_graph_bs_prefill"] = graphs.mixed
    if launch.pdmux:
        arguments |= _SPATIAL
    return arguments


def server_arguments(launch: Launch, *, planned: bool) -> Any:
    """SGLang's `ServerArgs`; what the user gives wins.

    Args:
        launch: how to start it.
        planned: whether its scheduler follows a plan.

    Raises:
        BlendplanError: the user names one that does not exist, or that a plan or spatial sharing
            excludes.
    """
    from sglang.srt.server_args import ServerArgs

    parser = _Parser()
    ServerArgs.add_cli_args(parser)
    given = vars(parser.parse_args(["--model-path", launch.model, *launch.flags]))
    names = list(ServerArgs.__struct_fields__)
    arguments = {name: value for name, value in given.items() if name in names}
    flags = parser.mentioned(launch.flags)
    own = own_arguments(launch)
    arguments |= {name: value for name, value in own.items() if name not in flags}
    for name, value in launch.arguments.items():
        if name not in names:
            hint = did_you_mean(name, names) or "see sglang serve --help"
            raise BlendplanError(f"SGLang has no engine argument {name!r}; {hint}")
        arguments[name] = value
    # It ends with a request over the network, to a server that is not there.
    arguments["skip_server_warmup"] = False
    if launch.pdmux:
        _keep_spatial_sharing(arguments)
    if planned:
        _keep_one_scheduler(arguments)
    try:
        server_args = ServerArgs(**arguments)
        server_args.resolve_once()
    except (AssertionError, TypeError, ValueError) as error:
        raise BlendplanError(
            f"SGLang refuses its arguments: {' '.join(str(error).split()) or type(error).__name__}"
        ) from None
    return server_args


def _keep_one_scheduler(arguments: dict[str, Any]) -> None:
    """Whatever the user gave, one scheduler follows the plan."""
    for name, needed in _PLANNED.items():
        if name in arguments and (arguments[name] or needed) != needed:
            raise BlendplanError(
                f"a replay needs {name}={json.dumps(needed)}, not {json.dumps(arguments[name])}; "
                "leave it out" + ("" if "size" not in name else ", or plan with --replicas")
            )


def _keep_spatial_sharing(arguments: dict[str, Any]) -> None:
    """Whatever the user gave, prefill and decode share the GPU."""
    for name, needed in _SPATIAL.items():
        if arguments[name] != needed:
            raise BlendplanError(
                f"spatial sharing of prefill and decode needs {name}={json.dumps(needed)}, not "
                f"{json.dumps(arguments[name])}; drop that argument or --pdmux"
            )


def _says_graphs(launch: Launch) -> bool:
    """Whether the user says which CUDA graphs to capture."""
    return any(
        "cuda_graph" in word.replace("-", "_") for word in [*launch.arguments, *launch.flags]
    )


class _Parser(argparse.ArgumentParser):
    """SGLang's command line, with errors instead of an exit."""

    def __init__(self) -> None:
        super().__init__(prog="sglang serve", add_help=False)

    def error(self, message: str) -> Any:
        raise BlendplanError(
            f"SGLang does not understand what stands after --: {' '.join(message.split())}; "
            "see sglang serve --help"
        )

    def mentioned(self, flags: Iterable[str]) -> set[str]:
        """The arguments that a user's flags set."""
        words = {flag.split("=")[0] for flag in flags if flag.startswith("-")}
        return {
            action.dest for action in self._actions if words.intersection(action.option_strings)
        }

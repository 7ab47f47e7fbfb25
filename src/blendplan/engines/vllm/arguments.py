"""How vLLM is started for a plan: its own command line, as a user would write it."""

import json
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from blendplan.engines.protocol import Launch
from blendplan.errors import BlendplanError
from blendplan.names import did_you_mean

SCHEDULER = "blendplan.engines.vllm.PlannedScheduler"
_KV_DTYPES = {"bf16": "bfloat16", "fp16": "float16"}


def own_arguments(launch: Launch, folder: Path | None) -> dict[str, Any]:
    """What a plan asks of vLLM, by the names of its arguments.

    Args:
        launch: how to start it.
        folder: of the replay, for the scheduler; None where no plan is followed.
    """
    arguments: dict[str, Any] = {
        "model": launch.model,
        "enable_prefix_caching": True,
        "enable_prompt_tokens_details": True,
        "tensor_parallel_size": launch.tp,
    }
    if launch.limits is not None:
        arguments["max_num_seqs"] = launch.limits.max_num_seqs
        arguments["max_num_batched_tokens"] = launch.limits.max_num_batched_tokens
        # Without it, the plan leaves the choice to vLLM, which schedules asynchronously if it can.
        if launch.limits.async_scheduling:
            arguments["async_scheduling"] = True
    if launch.context_tokens is not None:
        arguments["max_model_len"] = launch.context_tokens
    if launch.block_size is not None:
        arguments["block_size"] = launch.block_size
    if launch.gpu_memory_utilization is not None:
        arguments["gpu_memory_utilization"] = launch.gpu_memory_utilization
    if launch.kv_dtype != "auto":
        arguments["kv_cache_dtype"] = _KV_DTYPES.get(launch.kv_dtype, launch.kv_dtype)
    if launch.lacks_tokenizer():
        arguments["skip_tokenizer_init"] = True
    if "vllm" in launch.graphs and not _says_graphs(launch):
        arguments["cudagraph_capture_sizes"] = launch.graphs["vllm"].mixed
    if folder is not None:
        arguments["scheduler_cls"] = SCHEDULER
        arguments["additional_config"] = {
            "blendplan": str(folder),
            "blendplan_log_steps": launch.log_steps,
        }
    return arguments


def server_arguments(launch: Launch, folder: Path | None) -> Namespace:
    """The arguments of vLLM's server, as its own command line reads them; the user's own win.

    Raises:
        BlendplanError: the user names one that does not exist, or that a plan cannot do without.
    """
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = _Parser(make_arg_parser(FlexibleArgumentParser(add_help=False)))
    words = [word for item in launch.arguments.items() for word in parser.words(*item)]
    words += launch.flags
    args = parser.read(["--model", launch.model, *words])
    given = own_arguments(launch, folder)
    for name, value in given.items():
        if not parser.mentions(name, words):
            setattr(args, name, value)
    if folder is not None:
        _keep_the_scheduler(args, given)
    try:
        validate_parsed_serve_args(args)
    except (TypeError, ValueError) as error:
        raise BlendplanError(
            f"vLLM refuses its arguments: {' '.join(str(error).split())}"
        ) from None
    return args


def _keep_the_scheduler(args: Namespace, given: Mapping[str, Any]) -> None:
    """Whatever the user gave, the scheduler follows the plan."""
    if args.scheduler_cls != given["scheduler_cls"]:
        raise BlendplanError(
            f"a replay needs scheduler_cls={SCHEDULER}, not {args.scheduler_cls!r}; leave it out"
        )
    if int(args.data_parallel_size or 1) > 1:
        raise BlendplanError(
            f"a replay drives one engine, data_parallel_size={args.data_parallel_size} makes "
            "several; plan with --replicas and replay each with --replica"
        )
    users = args.additional_config if isinstance(args.additional_config, dict) else {}
    args.additional_config = {**users, **given["additional_config"]}


class _Parser:
    """vLLM's command line, with errors instead of an exit."""

    def __init__(self, parser: Any) -> None:
        self._parser = parser

    def read(self, words: Iterable[str]) -> Namespace:
        def refuse(message: str) -> None:
            raise BlendplanError(
                f"vLLM does not understand its arguments: {' '.join(message.split())}; "
                "see vllm serve --help"
            )

        self._parser.error = refuse
        args: Namespace = self._parser.parse_args(list(words))
        return args

    def words(self, name: str, value: Any) -> list[str]:
        """An argument given by name as words of the command line, so that it is read as there.

        Raises:
            BlendplanError: there is no such argument.
        """
        actions = {action.dest: action for action in self._parser._actions}
        if name not in actions:
            hint = did_you_mean(name, list(actions)) or "see vllm serve --help"
            raise BlendplanError(f"vLLM has no engine argument {name!r}; {hint}")
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool) and actions[name].nargs == 0:
            return [flag if value else f"--no-{flag[2:]}"]
        values = value if isinstance(value, list) and actions[name].nargs else [value]
        return [flag, *(one if isinstance(one, str) else json.dumps(one) for one in values)]

    def mentions(self, name: str, flags: Iterable[str]) -> bool:
        """Whether the user's flags set an argument."""
        spelled = {
            option.lstrip("-").removeprefix("no-").replace("-", "_")
            for action in self._parser._actions
            if action.dest == name
            for option in action.option_strings
        }
        words = {flag.split("=")[0] for flag in flags if flag.startswith("-")}
        return bool(spelled & {_name(word) for word in words})


def _says_graphs(launch: Launch) -> bool:
    """Whether the user says which CUDA graphs to capture; vLLM takes sizes in one place only."""
    said = [*launch.flags, json.dumps(launch.arguments, default=str)]
    return any("cudagraph_capture_size" in word.replace("-", "_") for word in said)


def _name(flag: str) -> str:
    """The argument that a flag of vLLM sets."""
    return flag.lstrip("-").removeprefix("no-").replace("-", "_")

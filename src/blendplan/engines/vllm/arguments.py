"""From blendplan's words to vLLM's: engine arguments and sampling parameters."""

from collections.abc import Mapping
from typing import Any

from blendplan.engines.protocol import EngineRequest, Launch
from blendplan.engines.words import (
    check_argument_names,
    ends_only_at_cap,
    generation_cap,
    unsupported,
)

# Sampling parameters that vLLM takes by the names that requests use.
_SAME = frozenset(
    [
        *("n", "temperature", "top_p", "top_k", "min_p", "seed", "min_tokens"),
        *("presence_penalty", "frequency_penalty", "repetition_penalty"),
        *("stop", "stop_token_ids", "bad_words", "include_stop_str_in_output"),
        *("skip_special_tokens", "spaces_between_special_tokens"),
    ]
)
_TRANSLATED = frozenset(
    [
        *("max_tokens", "max_completion_tokens", "ignore_eos", "logit_bias"),
        *("logprobs", "top_logprobs", "response_format"),
    ]
)
_KV_DTYPES = {"bf16": "bfloat16", "fp16": "float16"}


def engine_arguments(launch: Launch, known: type[Any]) -> dict[str, Any]:
    """Arguments of ``known``, which is `vllm.EngineArgs`; the user's own win.

    Raises:
        BlendplanError: the user names one that does not exist.
    """
    arguments: dict[str, Any] = {
        "model": launch.model,
        "enable_prefix_caching": True,
        "tensor_parallel_size": launch.tp,
        "disable_log_stats": False,  # preemptions and first-token times come from them
    }
    if launch.limits is not None:
        arguments["max_num_seqs"] = launch.limits.max_num_seqs
        arguments["max_num_batched_tokens"] = launch.limits.max_num_batched_tokens
    if launch.kv_dtype != "auto":
        arguments["kv_cache_dtype"] = _KV_DTYPES.get(launch.kv_dtype, launch.kv_dtype)
    if launch.lacks_tokenizer():
        arguments["skip_tokenizer_init"] = True
    if "vllm" in launch.graphs and not _says_graphs(launch.arguments):
        arguments["cudagraph_capture_sizes"] = launch.graphs["vllm"].mixed
    check_argument_names("vLLM", launch.arguments, known)
    return arguments | launch.arguments


def _says_graphs(arguments: Mapping[str, Any]) -> bool:
    """Whether the user says which CUDA graphs to capture; vLLM takes sizes in one place only."""
    names = ("cudagraph_capture_sizes", "max_cudagraph_capture_size")
    # Another form than an object may hold anything.
    config = arguments.get("compilation_config", {})
    return any(name in arguments for name in names) or (
        not isinstance(config, dict) or any(name in config for name in names)
    )


def sampling_arguments(request: EngineRequest, *, tokenizer: bool) -> dict[str, Any]:
    """Arguments of `vllm.SamplingParams`.

    Raises:
        UnsupportedParameterError: the request has a parameter that is not known here.
    """
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    given = request.parameters
    foreign = [name for name in given if name not in _SAME | _TRANSLATED]
    if foreign:
        raise unsupported("vLLM", foreign)
    arguments = {name: given[name] for name in _SAME & given.keys()}
    arguments["max_tokens"] = generation_cap(request)
    arguments["ignore_eos"] = ends_only_at_cap(request)
    arguments["detokenize"] = tokenizer
    arguments["output_kind"] = RequestOutputKind.FINAL_ONLY
    if "logit_bias" in given:
        arguments["logit_bias"] = {int(token): bias for token, bias in given["logit_bias"].items()}
    if given.get("logprobs") is True:
        arguments["logprobs"] = int(given.get("top_logprobs", 0))
    elif given.get("logprobs"):
        arguments["logprobs"] = int(given["logprobs"])
    structure = _structure(given.get("response_format"))
    if structure:
        arguments["structured_outputs"] = StructuredOutputsParams(**structure)
    return arguments


def _structure(response_format: Any) -> dict[str, Any]:
    """vLLM's words for OpenAI's ``response_format``."""
    if response_format is None:
        return {}
    kind = response_format.get("type") if isinstance(response_format, dict) else None
    if kind == "text":
        return {}
    if kind == "json_object":
        return {"json_object": True}
    if kind == "json_schema":
        return {"json": response_format["json_schema"]["schema"]}
    raise ValueError(f"response_format of type {kind!r} is not known")

"""From blendplan's words to SGLang's: engine arguments and what one request asks for."""

import json
from typing import Any

from blendplan.engines.protocol import EngineRequest, Launch
from blendplan.engines.words import (
    check_argument_names,
    ends_only_at_cap,
    generation_cap,
    unsupported,
)
from blendplan.errors import BlendplanError

# Sampling parameters by SGLang's name, where it differs from the one that requests use.
_NAMES = {
    "n": "n",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "repetition_penalty": "repetition_penalty",
    "seed": "sampling_seed",
    "stop": "stop",
    "stop_token_ids": "stop_token_ids",
    "min_tokens": "min_new_tokens",
    "logit_bias": "logit_bias",
    "skip_special_tokens": "skip_special_tokens",
    "spaces_between_special_tokens": "spaces_between_special_tokens",
    "include_stop_str_in_output": "no_stop_trim",
}
_TRANSLATED = frozenset(
    [
        *("max_tokens", "max_completion_tokens", "ignore_eos"),
        *("logprobs", "top_logprobs", "response_format"),
    ]
)
_KV_DTYPES = {"bf16": "bf16", "fp16": "auto", "fp8": "fp8_e4m3"}


def engine_arguments(launch: Launch, known: type[Any]) -> dict[str, Any]:
    """Arguments of ``known``, which is SGLang's `ServerArgs`; the user's own win.

    Raises:
        BlendplanError: the user names one that does not exist, or one that spatial sharing
            excludes.
    """
    arguments: dict[str, Any] = {
        "model_path": launch.model,
        "schedule_policy": "fcfs",
        # Prefill and decode in one batch: without it they take turns and nothing blends.
        "enable_mixed_chunk": True,
        "tp_size": launch.tp,
        "load_snapshot_publish_interval": 1,
    }
    if launch.limits is not None:
        arguments["max_running_requests"] = launch.limits.max_num_seqs
        arguments["chunked_prefill_size"] = launch.limits.max_num_batched_tokens
        arguments["max_prefill_tokens"] = launch.limits.max_num_batched_tokens
    if launch.kv_dtype != "auto":
        arguments["kv_cache_dtype"] = _KV_DTYPES.get(launch.kv_dtype, launch.kv_dtype)
    if launch.lacks_tokenizer():
        arguments["skip_tokenizer_init"] = True
    graphs = launch.graphs.get("sglang")
    if graphs is not None and not any("cuda_graph" in name for name in launch.arguments):
        arguments["cuda_graph_bs_decode"] = graphs.decode
        if not launch.pdmux:
            arguments["cuda_graph_bs_prefill"] = graphs.mixed
    if launch.pdmux:
        arguments |= _SPATIAL
        for name, value in _SPATIAL.items():
            if launch.arguments.get(name, value) != value:
                raise BlendplanError(
                    f"spatial sharing of prefill and decode needs {name}={json.dumps(value)}, not "
                    f"{json.dumps(launch.arguments[name])}; drop that --engine-arg or --pdmux"
                )
    check_argument_names("SGLang", launch.arguments, known)
    return arguments | launch.arguments


# What enable_pdmux requires (sglang/srt/server_args.py).
_SPATIAL = {
    "enable_pdmux": True,
    "chunked_prefill_size": -1,
    "disable_overlap_schedule": True,
    "enable_mixed_chunk": False,
}


def generate_arguments(
    request: EngineRequest, tokenizer: Any, context_tokens: int
) -> dict[str, Any]:
    """Arguments of `sglang.Engine.async_generate`.

    Args:
        request: what is asked.
        tokenizer: the model's, None when the engine has none.
        context_tokens: most tokens of a request.

    Raises:
        UnsupportedParameterError: the request has a parameter that is not known here.
        ValueError: the prompt is text and there is no tokenizer.
    """
    given = request.parameters
    foreign = [name for name in given if name not in _NAMES.keys() | _TRANSLATED]
    if foreign:
        raise unsupported("SGLang", foreign)
    tokens = request.prompt_token_ids
    if tokens is None:
        tokens = _encode(request, tokenizer)
    room = max(1, context_tokens - len(tokens))
    cap = generation_cap(request)
    sampling = {_NAMES[name]: given[name] for name in _NAMES.keys() & given.keys()}
    sampling["max_new_tokens"] = room if cap is None else min(cap, room)
    sampling["ignore_eos"] = ends_only_at_cap(request)
    sampling |= _structure(given.get("response_format"))
    arguments: dict[str, Any] = {"input_ids": tokens, "sampling_params": sampling}
    if given.get("logprobs"):
        asked_for = given.get("top_logprobs", 0) if given["logprobs"] is True else given["logprobs"]
        arguments |= {"return_logprob": True, "top_logprobs_num": int(asked_for)}
    return arguments


def _encode(request: EngineRequest, tokenizer: Any) -> list[int]:
    if tokenizer is None:
        raise ValueError("the prompt is text and the engine has no tokenizer")
    if request.messages is None:
        return list(tokenizer.encode(request.text))
    text = tokenizer.apply_chat_template(
        request.messages, tools=request.tools, add_generation_prompt=True, tokenize=False
    )
    # The template writes the special tokens itself.
    return list(tokenizer.encode(text, add_special_tokens=False))


def _structure(response_format: Any) -> dict[str, Any]:
    """SGLang's words for OpenAI's ``response_format``."""
    if response_format is None:
        return {}
    kind = response_format.get("type") if isinstance(response_format, dict) else None
    if kind == "text":
        return {}
    if kind == "json_object":
        return {"json_schema": '{"type": "object"}'}
    if kind == "json_schema":
        return {"json_schema": json.dumps(response_format["json_schema"]["schema"])}
    raise ValueError(f"response_format of type {kind!r} is not known")

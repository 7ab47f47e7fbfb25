"""All kinds of request, by the engine that answers them."""

from typing import Any, NamedTuple

from tests.engines.parity.chat_kinds import CHAT_KINDS
from tests.engines.parity.completion_kinds import COMPLETION_KINDS
from tests.engines.parity.kind import CONTEXT, MODEL, Kind
from tests.engines.parity.other_kinds import ADAPTER, PARTS_KINDS, POOLED_KINDS, URL_KINDS
from tests.engines.parity.tool_kinds import TOOL_KINDS


class Served(NamedTuple):
    """An engine with a model, and the kinds of request that it gets.

    ``model`` names one of the folders that `models` writes. ``arguments`` are the engine's, by
    its own names.
    """

    name: str
    model: str
    kinds: list[Kind]
    arguments: dict[str, Any]


_COMMON = {
    "served_model_name": MODEL,
    "max_model_len": CONTEXT,
    "max_num_seqs": 32,
    "max_num_batched_tokens": 2048,
    "block_size": 32,
    "num_gpu_blocks_override": 1025,  # one is a placeholder
    "enforce_eager": True,
    "seed": 0,
    "dtype": "float32",
    "distributed_executor_backend": "uni",
}
_TOOLS = {"enable_auto_tool_choice": True, "tool_call_parser": "hermes"}
_PARTS = {
    "reasoning_parser": "deepseek_r1",
    "trust_request_chat_template": True,
    "enable_lora": True,
    # On a CPU, vLLM 0.32 has requests without an adapter use the last place: it must stay empty.
    "max_loras": 2,
    "lora_modules": f"{ADAPTER}={{model}}/adapter",
}
KV_TOKENS = 1024 * 32

ENGINES = [
    Served(
        "generating",
        "plain",
        [*CHAT_KINDS, *TOOL_KINDS, *COMPLETION_KINDS, *URL_KINDS],
        _COMMON | _TOOLS,
    ),
    Served("adapted", "parts", PARTS_KINDS, _COMMON | _PARTS),
    Served("pooling", "plain", POOLED_KINDS, _COMMON | {"runner": "pooling", "convert": "embed"}),
]


def command_line(served: Served, folder: str) -> list[str]:
    """The arguments as words of vLLM's own command lines.

    Args:
        served: the engine.
        folder: of its model.
    """
    line = []
    for name, value in served.arguments.items():
        line.append("--" + name.replace("_", "-"))
        if value is not True:
            line.append(str(value).format(model=folder))
    return line

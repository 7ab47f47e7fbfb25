"""All kinds of request, by the engine that answers them."""

from tests.engines.parity.chat_kinds import CHAT_KINDS
from tests.engines.parity.completion_kinds import COMPLETION_KINDS
from tests.engines.parity.kind import CONTEXT, MODEL, Kind
from tests.engines.parity.other_kinds import ADAPTER, PARTS_KINDS, POOLED_KINDS, URL_KINDS
from tests.engines.parity.tool_kinds import TOOL_KINDS

PLAIN = [*CHAT_KINDS, *TOOL_KINDS, *COMPLETION_KINDS, *URL_KINDS]
PARTS = PARTS_KINDS
POOLED = POOLED_KINDS

# Flags of the engine as its command line takes them, shared by both sides.
COMMON = {
    "served_model_name": MODEL,
    "max_model_len": CONTEXT,
    "max_num_seqs": 32,
    "max_num_batched_tokens": 2048,
    "block_size": 32,
    "num_gpu_blocks_override": 1024,
    "enforce_eager": True,
    "seed": 0,
    "dtype": "float32",
    "distributed_executor_backend": "uni",
}
PLAIN_FLAGS = COMMON | {"enable_auto_tool_choice": True, "tool_call_parser": "hermes"}
PARTS_FLAGS = COMMON | {
    "reasoning_parser": "deepseek_r1",
    "trust_request_chat_template": True,
    "enable_lora": True,
    "lora_modules": f"{ADAPTER}={{model}}/adapter",
}
POOLED_FLAGS = COMMON | {"runner": "pooling", "convert": "embed"}


def command_line(flags: dict[str, object], model: str) -> list[str]:
    """The flags as words for vLLM's own command lines."""
    line = ["--model", model]
    for name, value in flags.items():
        line.append("--" + name.replace("_", "-"))
        if value is not True:
            line.append(str(value).format(model=model))
    return line


def lines_of(kinds: list[Kind]) -> list[dict[str, object]]:
    """The lines of the request file."""
    return [kind.line for kind in kinds]

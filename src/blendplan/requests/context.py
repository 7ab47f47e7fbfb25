"""Requests beside the context of a model: which never fit, and how long their outputs may be."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from blendplan.errors import BlendplanError
from blendplan.requests.columns import Requests
from blendplan.requests.rejected import CONTEXT_LENGTH, Refusal, prompts, where


def over_context(requests: Requests, max_model_len: int) -> list[Refusal]:
    """Requests whose prompt leaves a context of that many tokens no room for any output.

    A known output that is longer than the whole context is a mistake too; vLLM's server refuses it.
    """
    lengths, known = requests.prompt_tokens, requests.output_tokens
    refused = []
    for row in np.flatnonzero((lengths >= max_model_len) | (known > max_model_len)).tolist():
        what = prompts(int(lengths[row]), requests.estimated_tokens)
        if lengths[row] < max_model_len:
            what = f"output of {int(known[row]):,} tokens"
        message = f"{what}, model takes {max_model_len:,}"
        refused.append(Refusal(row, message, CONTEXT_LENGTH))
    return refused


def check_context(requests: Requests, max_model_len: int) -> None:
    """Raise a BlendplanError that names the first request over the context, where there is one."""
    refused = over_context(requests, max_model_len)
    if not refused:
        return
    first = refused[0]
    others = f"; {len(refused)} such requests in all" if len(refused) > 1 else ""
    raise BlendplanError(
        f"{where(requests, first.row)}: {first.message}{others}; --on-error skip leaves such "
        "requests out, --max-model-len states another context"
    )


def within_context(requests: Requests, max_model_len: int) -> Requests:
    """The same requests with caps and known lengths cut to what engines let them generate.

    vLLM's server lets no output go beyond the context: it takes the smaller of ``max_tokens`` and
    what the prompt leaves (`get_max_tokens`, ``vllm/entrypoints/serve/utils/api_utils.py``).
    """
    room = np.maximum(1, max_model_len - requests.prompt_tokens.astype(np.int64))
    caps, known = _cut(requests.max_tokens, room), _cut(requests.output_tokens, room)
    if caps is requests.max_tokens and known is requests.output_tokens:
        return requests
    return replace(requests, max_tokens=caps, output_tokens=known)


def _cut(tokens: NDArray[np.int32], room: NDArray[np.int64]) -> NDArray[np.int32]:
    return np.minimum(tokens, room).astype(np.int32) if np.any(tokens > room) else tokens

"""Requests that no engine of a given size can ever run."""

import numpy as np
from numpy.typing import NDArray

from blendplan.errors import BlendplanError
from blendplan.requests.columns import Requests
from blendplan.requests.rejected import KV_CACHE, Refusal, where


def too_long(requests: Requests, kv_tokens: int) -> NDArray[np.int64]:
    """Requests whose prompt and known output exceed a KV cache of that many tokens; int64.

    The last generated token is never written to the cache. An output of unknown length counts as
    one token: its prediction is cut to what fits.
    """
    outputs = np.maximum(1, requests.output_tokens)
    total = requests.prompt_tokens.astype(np.int64) + outputs - 1
    return np.flatnonzero(total > kv_tokens)


def check_fits(requests: Requests, kv_tokens: int) -> None:
    """Raise a BlendplanError that names the longest request when some can never run."""
    rows = too_long(requests, kv_tokens)
    if not len(rows):
        return
    sizes = requests.prompt_tokens[rows].astype(np.int64) + requests.output_tokens[rows]
    worst = int(rows[np.argmax(sizes)])
    others = {1: "", 2: ", nor can one other"}.get(len(rows), f", nor can {len(rows) - 1} others")
    raise BlendplanError(
        f"{where(requests, worst)}: {_long(requests, worst)} can never fit the KV cache of "
        f"{kv_tokens} tokens{others}; --on-error skip leaves such requests out, --tp, --kv-dtype "
        "or another GPU make the cache larger"
    )


def over_kv_cache(requests: Requests, kv_tokens: int) -> list[Refusal]:
    """The same as refusals, with the reasons."""
    return [
        Refusal(
            row,
            f"{_long(requests, row)} can never fit the KV cache of {kv_tokens} tokens",
            KV_CACHE,
        )
        for row in too_long(requests, kv_tokens).tolist()
    ]


def _long(requests: Requests, row: int) -> str:
    output = int(requests.output_tokens[row])
    length = f"{int(requests.prompt_tokens[row])} prompt tokens"
    return f"{length} and {output} output tokens" if output > 0 else length

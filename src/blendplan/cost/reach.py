"""`Reach`: how far back attention looks, and what of a context is read and multiplied for it.

Layers of a model may differ: some look at every earlier token, some at a window of the latest ones,
some at the tokens since the last multiple of a chunk. A step is priced by sums over all of them, in
which each kind of layer counts as much as its share of the price says. Where all layers look at
everything, the sums are plain numbers of tokens and pairs.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from blendplan.checks.arguments import flag, number, whole
from blendplan.errors import BlendplanError
from blendplan.kernels.kernel import kernel

MOST_REACH = 1 << 30


class Reach(NamedTuple):
    """How far back the attention of k kinds of layers looks.

    Attributes:
        tokens: most tokens that a query looks at, the latest ones and its own; 0 for all; int64
            [k].
        chunked: whether those are the ones since the last multiple of ``tokens``; bool [k].
        pair_share: of the price of a (query, key) pair over all layers; float64 [k], 1 in sum.
        read_share: of the price of a KV token that a decode reads in all layers; float64 [k], 1 in
            sum.
    """

    tokens: NDArray[np.int64]
    chunked: NDArray[np.bool_]
    pair_share: NDArray[np.float64]
    read_share: NDArray[np.float64]


ALL_TOKENS = Reach(np.zeros(1, np.int64), np.zeros(1, np.bool_), np.ones(1), np.ones(1))
"""Every layer looks at every earlier token."""
OWN_TOKEN = Reach(np.ones(1, np.int64), np.zeros(1, np.bool_), np.ones(1), np.ones(1))
"""No layer looks at any but the token at hand: a model of states alone, each read as one token."""


@kernel
def sees_all(reach: Reach) -> bool:
    """Whether every layer looks at every earlier token."""
    return len(reach.tokens) == 1 and reach.tokens[0] == 0


@kernel
def tokens_read(reach: Reach, context: int) -> float:
    """KV tokens that a decode reads whose context has so many tokens, its own included.

    Of layers that differ, the mean by their shares of the price.
    """
    read = 0.0
    for kind in range(len(reach.tokens)):
        read += reach.read_share[kind] * _seen(reach.tokens[kind], reach.chunked[kind], context)
    return read


@kernel
def pairs_of(reach: Reach, before: int, new: int) -> float:
    """(Query, key) pairs of ``new`` tokens behind ``before`` others; a mean as above."""
    if sees_all(reach):
        return new * float(before) + new * (new + 1) / 2
    pairs = 0.0
    for kind in range(len(reach.tokens)):
        tokens, chunked = reach.tokens[kind], reach.chunked[kind]
        seen = _seen_up_to(tokens, chunked, before + new) - _seen_up_to(tokens, chunked, before)
        pairs += reach.pair_share[kind] * seen
    return pairs


@kernel
def _seen(tokens: int, chunked: bool, context: int) -> int:
    """Tokens that the last query of a context looks at in layers of one kind."""
    if tokens == 0:
        return context
    if chunked:
        return (context - 1) % tokens + 1
    return min(context, tokens)


@kernel
def _seen_up_to(tokens: int, chunked: bool, context: int) -> float:
    """Sum of `_seen` over contexts of 1 to ``context`` tokens."""
    if tokens == 0 or context <= tokens:
        return context * (context + 1.0) / 2
    whole = tokens * (tokens + 1.0) / 2
    if chunked:
        rest = context % tokens
        return context // tokens * whole + rest * (rest + 1.0) / 2
    return whole + (context - tokens) * float(tokens)


def tokens_read_by(reach: Reach, contexts: ArrayLike) -> float:
    """KV tokens that decodes read whose contexts have so many tokens, their own included."""
    x = np.asarray(contexts, np.float64)
    return float((reads_up_to(reach, x) - reads_up_to(reach, x - 1.0)).sum())


def pairs_up_to(reach: Reach, context: ArrayLike) -> NDArray[np.float64]:
    """Pairs of all tokens of contexts that are computed from their start; float64.

    Args:
        reach: of k kinds of layers.
        context: numbers of tokens; int64, of any shape.
    """
    return _shared(reach.pair_share, reach, context)


def reads_up_to(reach: Reach, context: ArrayLike) -> NDArray[np.float64]:
    """KV tokens that decodes of contexts of 1, 2, ... ``context`` tokens read in all; float64."""
    return _shared(reach.read_share, reach, context)


def _shared(share: NDArray[np.float64], reach: Reach, context: ArrayLike) -> NDArray[np.float64]:
    x = np.asarray(context, np.float64)
    total = np.zeros_like(x)
    for kind, tokens in enumerate(reach.tokens.tolist()):
        inside = x * (x + 1.0) / 2
        if tokens:
            whole = tokens * (tokens + 1.0) / 2
            rest = x % tokens
            beyond = whole + (x - tokens) * tokens
            if reach.chunked[kind]:
                beyond = x // tokens * whole + rest * (rest + 1.0) / 2
            inside = np.where(x <= tokens, inside, beyond)
        total += share[kind] * inside
    return total


def reads(reach: Reach, prompt_tokens: ArrayLike, output_tokens: ArrayLike) -> NDArray[np.float64]:
    """KV tokens that requests read while they decode; float64 [n].

    p d + d^2 / 2 where every layer sees all, with the integral of a growing context for its sum.

    Args:
        reach: of k kinds of layers.
        prompt_tokens, output_tokens: p and d; float64 [n].
    """
    p, d = np.asarray(prompt_tokens, np.float64), np.asarray(output_tokens, np.float64)
    return growing_share(reach) * (p * d + d * d / 2.0) + mean_read(reach, p, d) * d


def mean_read(
    reach: Reach, prompt_tokens: ArrayLike, output_tokens: ArrayLike
) -> NDArray[np.float64]:
    """KV tokens that each decode of a request reads on average in layers that do not see all.

    The request's context grows from p to p + d tokens: as an integral, for d may be a mean.

    Args:
        reach: of k kinds of layers.
        prompt_tokens, output_tokens: p and d > 0; float64 [n].

    Returns:
        float64 [n]; zeros where every layer sees all.
    """
    p, d = np.asarray(prompt_tokens, np.float64), np.asarray(output_tokens, np.float64)
    mean = np.zeros(np.broadcast_shapes(p.shape, d.shape))
    for kind, tokens in enumerate(reach.tokens.tolist()):
        if tokens:
            grown = _area(tokens, bool(reach.chunked[kind]), p + d)
            mean += (
                reach.read_share[kind] * (grown - _area(tokens, bool(reach.chunked[kind]), p)) / d
            )
    return mean


def _area(tokens: int, chunked: bool, context: NDArray[np.float64]) -> NDArray[np.float64]:
    """Integral, from 0 to ``context``, of what layers of one kind look at."""
    if chunked:
        rest = context % tokens
        return (context // tokens) * tokens**2 / 2 + rest**2 / 2
    inside = np.minimum(context, tokens)
    return inside**2 / 2 + (context - inside) * tokens


def reach_as_metadata(reach: Reach) -> dict[str, Any]:
    """The same as JSON values."""
    return {name: column.tolist() for name, column in reach._asdict().items()}


def reach_from_metadata(columns: object, where: str) -> Reach:
    """What `reach_as_metadata` wrote.

    Args:
        columns: JSON values.
        where: of them, for errors.

    Raises:
        BlendplanError: not such columns.
    """
    expected = f"expected the columns {', '.join(Reach._fields)}, as long as each other"
    if not isinstance(columns, Mapping) or set(columns) != set(Reach._fields):
        raise BlendplanError(f"{where}: {expected}")
    lists = [columns[name] for name in Reach._fields]
    if not all(isinstance(item, list) and len(item) == len(lists[0]) > 0 for item in lists):
        raise BlendplanError(f"{where}: {expected}")
    for tokens in columns["tokens"]:
        whole(f"{where}.tokens", tokens, 0, MOST_REACH)
    for chunked in columns["chunked"]:
        flag(f"{where}.chunked", chunked)
    for name in ("pair_share", "read_share"):
        for share in columns[name]:
            number(f"{where}.{name}", share, 0.0, 1.0)
    return Reach(
        np.array(columns["tokens"], np.int64),
        np.array(columns["chunked"], np.bool_),
        np.array(columns["pair_share"], np.float64),
        np.array(columns["read_share"], np.float64),
    )


def growing_share(reach: Reach) -> float:
    """Share of the price of a read that layers have which see every token."""
    return float(reach.read_share[reach.tokens == 0].sum())

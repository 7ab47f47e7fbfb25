"""`Holding`: how much of the KV cache a request holds as its context grows."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from blendplan.checks.arguments import number
from blendplan.errors import BlendplanError
from blendplan.hardware.kv_layer import CHUNKED, SLIDING, STATE
from blendplan.hardware.kv_layout import KvLayout

# More tokens than any context has.
_MOST = 1 << 50


class Holding(NamedTuple):
    """Slots of the KV cache that a request holds, by the tokens of its context.

    A slot is what one token takes in one group of layers, so a request may hold several for each
    token of its context. Where all layers keep all tokens there is one group, and a slot is a
    token.

    Attributes:
        growth: slots for each token of the context, in groups that keep all.
        windows: of each group that keeps a window of the latest tokens, its length, and the slots
            that each token takes.
        chunks: the same of groups that keep the tokens since the last multiple of a chunk.
        constant: slots of groups that keep a state, whatever the context.
    """

    growth: float = 1.0
    windows: Sequence[Sequence[float]] = ()
    chunks: Sequence[Sequence[float]] = ()
    constant: float = 0.0

    def level(self, context_tokens: ArrayLike) -> NDArray[np.float64]:
        """Slots in groups that do not keep all, of contexts of so many tokens; float64.

        Chunks count as half full once they have been half full: a request is somewhere in one.
        """
        context = np.asarray(context_tokens, np.float64)
        held = np.full_like(context, self.constant)
        for tokens, slots in self.windows:
            held += slots * np.minimum(context, tokens)
        for tokens, slots in self.chunks:
            held += slots * np.minimum(context, (tokens + 1) / 2)
        return held

    def held(self, context_tokens: ArrayLike) -> NDArray[np.float64]:
        """Slots held with contexts of so many tokens; float64."""
        return self.growth * np.asarray(context_tokens, np.float64) + self.level(context_tokens)

    @property
    def most_per_token(self) -> float:
        """Most slots that one token of a context takes."""
        return self.growth + sum(slots for _, slots in (*self.windows, *self.chunks))

    def longest(self, slots: int) -> int:
        """Tokens of the longest context that so many slots hold, of whatever blocks they are."""
        least, most = 0, _MOST
        if self.held(most) <= slots:
            return most
        while most - least > 1:
            middle = (least + most) // 2
            if self.held(middle) <= slots:
                least = middle
            else:
                most = middle
        return least

    def as_metadata(self) -> dict[str, Any]:
        """The same as JSON values."""
        pairs = {
            name: [list(pair) for pair in getattr(self, name)] for name in ("windows", "chunks")
        }
        return {"growth": self.growth, **pairs, "constant": self.constant}


def holding_from_metadata(stated: object, where: str) -> Holding:
    """What `Holding.as_metadata` wrote.

    Args:
        stated: JSON values.
        where: of them, for errors.

    Raises:
        BlendplanError: not what it writes.
    """
    if not isinstance(stated, Mapping) or set(stated) != set(Holding._fields):
        raise BlendplanError(f"{where}: expected the keys {', '.join(Holding._fields)}")
    groups: dict[str, tuple[tuple[float, float], ...]] = {}
    for name in ("windows", "chunks"):
        pairs = stated[name]
        if not isinstance(pairs, list) or not all(
            isinstance(pair, list) and len(pair) == 2 for pair in pairs
        ):
            raise BlendplanError(f"{where}.{name} must be a list of pairs of numbers")
        groups[name] = tuple(
            (
                number(f"{where}.{name}", tokens, 1.0, 1e12),
                number(f"{where}.{name}", slots, 0.0, 1e9),
            )
            for tokens, slots in pairs
        )
    return Holding(
        growth=number(f"{where}.growth", stated["growth"], 0.0, 1e9),
        constant=number(f"{where}.constant", stated["constant"], 0.0, 1e12),
        **groups,
    )


def holding_of(layout: KvLayout) -> Holding:
    """What a request holds of a KV cache of that layout."""
    windows, chunks = (
        tuple(
            (float(group.reach), layout.block_tokens / group.block_tokens)
            for group in layout.groups
            if group.kind == kind
        )
        for kind in (SLIDING, CHUNKED)
    )
    states = sum(group.kind == STATE for group in layout.groups)
    return Holding(
        growth=float(layout.growth),
        windows=windows,
        chunks=chunks,
        # A state takes a block, however many tokens that would hold.
        constant=float(layout.block_tokens * states),
    )


GROWS_BY_ONE = Holding()
"""One group of layers, which keep all tokens."""

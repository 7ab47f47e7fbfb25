"""Small models whose layers see and keep different parts of a context, for tests of every kind."""

import numpy as np

from blendplan.cost.reach import ALL_TOKENS, Reach
from blendplan.policy.holding import GROWS_BY_ONE, Holding


def reach_of(*kinds: tuple[int, bool, float, float]) -> Reach:
    """Kinds of layers: tokens, whether those are a chunk, share of pairs and of reads."""
    tokens, chunked, pairs, reads = zip(*kinds, strict=True)
    return Reach(
        np.array(tokens, np.int64), np.array(chunked, np.bool_), np.array(pairs), np.array(reads)
    )


PLAIN = (ALL_TOKENS, GROWS_BY_ONE, 0.0)
"""Every layer sees and keeps everything."""

LAYERS = [
    PLAIN,
    # One layer in four sees all, in a group of its own; two groups of windows.
    (
        reach_of((0, False, 0.5, 0.25), (3, False, 0.5, 0.75)),
        Holding(1.0, ((3.0, 1.0), (3.0, 1.0))),
        0.0,
    ),
    (reach_of((0, False, 0.5, 0.75), (4, True, 0.5, 0.25)), Holding(1.0, (), ((4.0, 2.0),)), 0.0),
    # Only windows.
    (reach_of((5, False, 1.0, 1.0)), Holding(0.0, ((5.0, 1.0),)), 0.0),
    # States beside attention, and alone.
    (ALL_TOKENS, Holding(1.0, (), (), 3.0), 20.0),
    (reach_of((1, False, 1.0, 1.0)), Holding(0.0, (), (), 2.0), 0.0),
    # Of everything something.
    (
        reach_of((0, False, 0.75, 0.5), (6, False, 0.25, 0.5)),
        Holding(2.0, ((6.0, 0.5),), (), 3.0),
        2.5,
    ),
]
"""What layers see, what a request holds for them, and KV tokens that its states cost in a step."""

REACHES = [reach for reach, _, _ in LAYERS]
HOLDINGS = [holding for _, holding, _ in LAYERS]

"""`write_prompts`: token ids for the requests of a mixture, in a shuffled order."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from benchmarks.synthetic.mixture import SYSTEM_TOKENS, VOCABULARY, Family, Mixture
from numpy.typing import NDArray

from blendplan.requests.columns import Requests

# Elements of an index array at a time when a prefix is copied into many prompts.
_COPIED_AT_ONCE = 1 << 22


def write_prompts(mixture: Mixture, seed: int = 0) -> Requests:
    """The requests of a mixture with random token ids, in random input order.

    A prompt is its source's system prompt, the prefix of its group, and tokens of its own, which no
    other request repeats but by chance. Ids are the source's name and a number.

    Args:
        mixture: families and lengths.
        seed: decides token ids and order.
    """
    ids_rng, order_rng = np.random.default_rng((seed, 1)), np.random.default_rng((seed, 2))
    families = mixture.families
    lengths = np.concatenate([family.prompt_tokens for family in families])
    order = order_rng.permutation(len(lengths))
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths[order], out=offsets[1:])
    starts = np.empty(len(lengths), np.int64)
    starts[order] = offsets[:-1]

    token_ids = ids_rng.integers(VOCABULARY, size=offsets[-1], dtype=np.int32)
    # Different first tokens, so that sources share nothing.
    first = ids_rng.choice(VOCABULARY, len(families), replace=False)
    begin = 0
    for family, token in zip(families, first, strict=True):
        own_starts = starts[begin : begin + len(family.rows)]
        begin += len(family.rows)
        system = ids_rng.integers(VOCABULARY, size=SYSTEM_TOKENS, dtype=np.int32)
        system[0] = token
        _copy(token_ids, own_starts, system)
        _write_groups(token_ids, own_starts + SYSTEM_TOKENS, family, ids_rng)

    outputs = np.concatenate([family.rows.output_tokens for family in families])
    return Requests(
        ids=_ids(families).take(pa.array(order)),
        source_row=np.arange(len(lengths), dtype=np.int64),
        token_ids=token_ids,
        offsets=offsets,
        output_tokens=outputs[order].astype(np.int32),
        max_tokens=np.full(len(lengths), -1, np.int32),
    )


def _write_groups(
    token_ids: NDArray[np.int32],
    starts: NDArray[np.int64],
    family: Family,
    rng: np.random.Generator,
) -> None:
    group = family.rows.group
    by_group = np.argsort(group, kind="stable")
    bounds = np.searchsorted(group[by_group], np.arange(len(family.rows.group_tokens) + 1))
    for number, length in enumerate(family.rows.group_tokens):
        prefix = rng.integers(VOCABULARY, size=int(length), dtype=np.int32)
        _copy(token_ids, starts[by_group[bounds[number] : bounds[number + 1]]], prefix)


def _copy(
    token_ids: NDArray[np.int32], starts: NDArray[np.int64], prefix: NDArray[np.int32]
) -> None:
    """Write the prefix at each of the starts."""
    at_once = max(1, _COPIED_AT_ONCE // max(1, len(prefix)))
    within = np.arange(len(prefix))
    for begin in range(0, len(starts), at_once):
        token_ids[starts[begin : begin + at_once, None] + within] = prefix


def _ids(families: tuple[Family, ...]) -> pa.Array:
    """Name and number, family after family; large_string [n]."""
    parts = [
        pc.binary_join_element_wise(
            pa.scalar(family.name, pa.large_string()),
            pa.array(np.arange(len(family.rows))).cast(pa.large_string()),
            pa.scalar("-", pa.large_string()),
        )
        for family in families
    ]
    return pa.chunked_array(parts, pa.large_string()).combine_chunks()

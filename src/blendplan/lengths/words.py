"""`word_features`: what the beginnings and the ends of prompts say, as a few numbers each.

The words of a prompt's first and last tokens, and pairs of neighbouring words, are hashed into
buckets. Latent semantic analysis (S. Deerwester and others, "Indexing by latent semantic analysis",
1990) turns these into a few components, in which prompts of one kind lie together. No output length
is looked at, so all requests teach it, not only those that have run.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from blendplan.kernels.kernel import kernel
from blendplan.kernels.side_by_side import side_by_side
from blendplan.requests.columns import Requests
from blendplan.tree.prefix_tree import PrefixTree

WINDOW_TOKENS = 64
"""Tokens at the beginning, and as many at the end, whose words are looked at."""

BUCKETS = 4096
"""Buckets for the words of the beginning, and as many for those of the end; a power of two."""

# Requests that the components are learned from.
_LEARNED_FROM = 8000
# Of Knuth and of splitmix64; products wrap.
_PRIME = np.uint64(1099511628211)
_MIX = np.uint64(0x9E3779B97F4A7C15)
_PAIR = np.uint64(0x94D049BB133111EB)
# Requests that one thread works on at a time.
_CHUNK = 16384


@dataclass(frozen=True)
class Prompts:
    """Where the words of n prompts are.

    Attributes:
        units: token ids, or where these stand for four bytes each, the bytes; [total].
        start, end: first unit of each prompt that is not in all of them, and its end; int64 [n].
        window: units at either end that are looked at.
    """

    units: NDArray[np.int32] | NDArray[np.uint8]
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    window: int

    def __len__(self) -> int:
        return len(self.start)


def word_features(requests: Requests, tree: PrefixTree, components: int) -> NDArray[np.float32]:
    """Components of the words of each prompt, the most telling first; float32 [n, components].

    The same for a prompt wherever it stands among the requests, and for any number of threads.

    Args:
        requests: n requests.
        tree: of those, before any split.
        components: how many; zeros where the prompts do not have as many.
    """
    prompts = prompts_of(requests, tree)
    places = np.unique(np.linspace(0, len(requests) - 1, _LEARNED_FROM).astype(np.int64))
    rare, directions = _components(prompts, tree.order[places], components)
    features = np.zeros((len(requests), components), dtype=np.float32)

    def fill(part: slice) -> None:
        buckets, offsets = _buckets(
            prompts.units, prompts.start[part], prompts.end[part], prompts.window
        )
        _project(buckets, offsets, rare, directions, features[part])

    side_by_side(len(requests), _CHUNK, fill)
    return features


def prompts_of(requests: Requests, tree: PrefixTree) -> Prompts:
    """The prompts without the prefix that all of them share, as bytes where they are estimates."""
    start, end = requests.offsets[:-1] + tree.common_tokens, requests.offsets[1:]
    if not requests.estimated_tokens:
        return Prompts(requests.token_ids, start, end, WINDOW_TOKENS)
    # `estimate_tokens` packs four bytes into a token.
    as_bytes = np.ascontiguousarray(requests.token_ids, dtype="<i4").view(np.uint8)
    return Prompts(as_bytes, start * 4, end * 4, WINDOW_TOKENS * 4)


def _components(
    prompts: Prompts, rows: NDArray[np.int64], components: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weight of each bucket, float32 [b], and what it adds to the components, float32 [b, c]."""
    # Imported when needed: it takes a second.
    from sklearn.utils.extmath import randomized_svd
    from threadpoolctl import threadpool_limits

    buckets, offsets = _buckets(
        prompts.units, prompts.start[rows], prompts.end[rows], prompts.window
    )
    count = np.bincount(buckets, minlength=2 * BUCKETS)
    rare = np.log((1.0 + len(rows)) / (1.0 + count)).astype(np.float32)
    weights = rare[buckets].astype(np.float64)
    norm = np.sqrt(np.add.reduceat(np.append(weights**2, 0.0), offsets[:-1]))
    norm[np.diff(offsets) == 0] = 0.0
    weights /= np.maximum(np.repeat(norm, np.diff(offsets)), 1e-12)
    counts = csr_matrix((weights, buckets, offsets), shape=(len(rows), 2 * BUCKETS))
    components = min(components, len(rows))
    # Sums of one thread: more would add up in another order.
    with threadpool_limits(1):
        _, _, directions = randomized_svd(counts, components, n_iter=4, random_state=0)
    return rare, np.ascontiguousarray(rare[:, None] * directions.T, dtype=np.float32)


@kernel
def _words(
    units: NDArray[np.generic],
    start: int,
    end: int,
    first_bucket: int,
    last_seen: NDArray[np.int64],
    stamp: int,
    found: NDArray[np.int32],
    count: int,
) -> int:
    """Add the buckets of a window's words and pairs that were not seen; returns how many are found.

    In bytes, a word is a run of letters, in lower case, and digits, all alike; any other character
    is a word, as is one of the scripts that do not part words. A token id is a word.
    """
    mask = np.uint64(len(last_seen) // 2 - 1)
    as_bytes = units.itemsize == 1
    before = np.uint64(0)
    word = np.uint64(0)
    i = start
    while i <= end:
        unit = np.uint64(units[i]) + np.uint64(1) if i < end else np.uint64(0)
        alone = np.uint64(0)
        character = int(unit) - 1
        if not as_bytes:
            alone = unit
        elif 0xE3 <= character < 0xF0:
            alone = unit
            for k in range(i + 1, min(i + 3, end)):
                alone = alone * _PRIME + np.uint64(units[k])
            i += 2
        elif 65 <= character <= 90:
            word = word * _PRIME + (unit + np.uint64(32))
        elif 48 <= character <= 57:
            word = word * _PRIME + np.uint64(49)
        elif 97 <= character <= 122 or character >= 128:
            word = word * _PRIME + unit
        elif character not in (-1, 0, 9, 13, 32):
            alone = unit
        i += 1
        in_word = as_bytes and (
            97 <= character <= 122
            or 48 <= character <= 57
            or 65 <= character <= 90
            or 128 <= character < 0xE3
            or character >= 0xF0
        )
        if in_word:
            continue
        # The word that ended here, then what ended it.
        for now in (word, alone):
            if now == 0:
                continue
            for key in (now, before * _PRIME + now + _PAIR):
                mixed = key * _MIX
                bucket = first_bucket + np.int64((mixed >> np.uint64(32)) & mask)
                if last_seen[bucket] != stamp:
                    last_seen[bucket] = stamp
                    found[count] = bucket
                    count += 1
            before = now
        word = np.uint64(0)
    return count


@kernel
def _buckets(
    units: NDArray[np.generic], start: NDArray[np.int64], end: NDArray[np.int64], window: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Buckets of each prompt, each once, and where those of each begin; int64 [k + 1]."""
    last_seen = np.full(2 * BUCKETS, -1, dtype=np.int64)
    offsets = np.zeros(len(start) + 1, dtype=np.int64)
    # A word and a pair for each unit of both windows, and those that end with a window.
    most = 4 * window + 8
    buckets = np.empty(64 * most, dtype=np.int32)
    count = 0
    for row in range(len(start)):
        if count + most > len(buckets):
            larger = np.empty(2 * len(buckets), dtype=np.int32)
            larger[:count] = buckets[:count]
            buckets = larger
        for part in range(2):
            first = start[row] if part == 0 else max(start[row], end[row] - window)
            last = min(end[row], start[row] + window) if part == 0 else end[row]
            count = _words(units, first, last, part * BUCKETS, last_seen, row, buckets, count)
        offsets[row + 1] = count
    return buckets[:count].copy(), offsets


@kernel
def _project(
    buckets: NDArray[np.int32],
    offsets: NDArray[np.int64],
    rare: NDArray[np.float32],
    directions: NDArray[np.float32],
    features: NDArray[np.float32],
) -> None:
    """Components of prompts with these buckets."""
    components = directions.shape[1]
    # Apart from all other arrays, so that the compiler may add many at a time.
    sums = np.empty(components, dtype=np.float32)
    for row in range(len(offsets) - 1):
        squares = np.float32(0.0)
        sums[:] = np.float32(0.0)
        for bucket in buckets[offsets[row] : offsets[row + 1]]:
            squares += rare[bucket] * rare[bucket]
            direction = directions[bucket]
            for c in range(components):
                sums[c] += direction[c]
        if squares > 0.0:
            scale = np.float32(1.0) / np.sqrt(squares)
            for c in range(components):
                features[row, c] = sums[c] * scale

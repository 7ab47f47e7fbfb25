"""`Traits`: what a glance at a request says of its kind, as sparse columns."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blendplan.kernels.kernel import kernel
from blendplan.requests.columns import Requests
from blendplan.tree.prefix_tree import PrefixTree
from blendplan.tree.sharing import shared_prefix_tokens

FloatArray = NDArray[np.float64]

# Tokens looked at on either side of a prompt.
_WINDOW = 32
# A word has to be in this share of the prompts to tell kinds apart, and at most so many do.
_RARE = 0.003
_MOST_WORDS = 256
_SLOTS = 1 << 14
# Weight of length, cap and sharing against that of all words together, which is 1.
_NUMBERS_WEIGHT = 0.35


@dataclass(frozen=True)
class Traits:
    """The v words and 3 numbers by which requests are compared.

    Words are tokens that many prompts have near their beginning, after what all prompts share, or
    near their end; the two are different words. The numbers are the logarithms of prompt length
    and ``max_tokens``, and the share of the prompt that several others begin with.

    Attributes:
        words: ``2 * token + side``, rising; int64 [v].
        weights: of the words; float64 [v].
        shift, scale: of the numbers; float64 [3] each.
        skip: tokens that all prompts share.
    """

    words: NDArray[np.int64]
    weights: FloatArray
    shift: FloatArray
    scale: FloatArray
    skip: int

    @classmethod
    def of(cls, requests: Requests, tree: PrefixTree, rows: NDArray[np.int64]) -> "Traits":
        """Those that tell some requests apart; int64 [k], k >= 1."""
        skip = tree.common_tokens
        seen = _window_words(requests.token_ids, requests.offsets, rows, skip)
        seen.sort(axis=1)
        seen[:, 1:][seen[:, 1:] == seen[:, :-1]] = -1
        words, counts = np.unique(seen[seen >= 0], return_counts=True)
        share = counts / len(rows)
        telling = np.minimum(share, 1.0 - share)
        often = np.flatnonzero(telling >= max(_RARE, 4.0 / len(rows)))
        often = np.sort(often[np.argsort(-telling[often], kind="stable")[:_MOST_WORDS]])
        numbers = _numbers(requests, tree, rows)
        spread = numbers.std(axis=0)
        return cls(
            words=words[often],
            weights=np.sqrt(-np.log(share[often])),
            shift=numbers.mean(axis=0),
            scale=_NUMBERS_WEIGHT / np.where(spread > 1e-9, spread, np.inf),
            skip=skip,
        )

    def __len__(self) -> int:
        return len(self.words) + 3

    def numbers(self, requests: Requests, tree: PrefixTree, rows: NDArray[np.int64]) -> FloatArray:
        """The numbers of some requests, shifted and scaled; float64 [k, 3]."""
        return (_numbers(requests, tree, rows) - self.shift) * self.scale

    def present(
        self, requests: Requests, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.int16], FloatArray]:
        """Words that some requests have.

        Returns:
            Indices of the words, -1 where there are no more; int16 [k, 2 * window]. What to
            multiply their weights with, so that the squares come to 1; float64 [k].
        """
        return _present(
            requests.token_ids, requests.offsets, rows, self.skip, self.words, self.weights
        )

    def dense(self, requests: Requests, tree: PrefixTree, rows: NDArray[np.int64]) -> FloatArray:
        """All traits of some requests; float64 [k, v + 3]."""
        present, norm = self.present(requests, rows)
        columns = np.zeros((len(rows), len(self)))
        row, place = np.nonzero(present >= 0)
        word = present[row, place]
        columns[row, word] = self.weights[word] * norm[row]
        columns[:, -3:] = self.numbers(requests, tree, rows)
        return columns


def _numbers(requests: Requests, tree: PrefixTree, rows: NDArray[np.int64]) -> FloatArray:
    """Logarithms of prompt length and cap, and the share of the prompt that is shared; [k, 3]."""
    prompt = requests.prompt_tokens_of(rows).astype(np.float64)
    cap = requests.max_tokens[rows].astype(np.float64)
    # Requests without a cap stand beside those with the largest.
    largest = max(1.0, float(requests.max_tokens.max(initial=1)))
    shared = shared_prefix_tokens(tree)[rows]
    return np.column_stack(
        [
            np.log2(1.0 + prompt),
            np.log2(np.where(cap < 0, 2.0 * largest, cap) + 1.0),
            shared / np.maximum(prompt, 1.0),
        ]
    )


@kernel
def _window_words(
    token_ids: NDArray[np.int32],
    offsets: NDArray[np.int64],
    rows: NDArray[np.int64],
    skip: int,
) -> NDArray[np.int64]:
    """Words at both sides of each prompt, -1 where there are no more; [k, 2 * window]."""
    words = np.full((len(rows), 2 * _WINDOW), -1, dtype=np.int64)
    for i in range(len(rows)):
        start, end = offsets[rows[i]] + skip, offsets[rows[i] + 1]
        for j in range(min(_WINDOW, end - start)):
            words[i, j] = 2 * np.int64(token_ids[start + j])
            words[i, _WINDOW + j] = 2 * np.int64(token_ids[end - 1 - j]) + 1
    return words


@kernel
def _present(
    token_ids: NDArray[np.int32],
    offsets: NDArray[np.int64],
    rows: NDArray[np.int64],
    skip: int,
    words: NDArray[np.int64],
    weights: NDArray[np.float64],
) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """See `Traits.present`."""
    found = np.full((len(rows), 2 * _WINDOW), -1, dtype=np.int16)
    norm = np.zeros(len(rows))
    last_seen = np.full(len(words), -1, dtype=np.int64)
    # Most tokens are none of the words; this says so at once.
    maybe = np.zeros(_SLOTS, dtype=np.bool_)
    for w in range(len(words)):
        maybe[words[w] & (_SLOTS - 1)] = True
    for i in range(len(rows)):
        start, end = offsets[rows[i]] + skip, offsets[rows[i] + 1]
        count, squares = 0, 0.0
        for j in range(min(_WINDOW, end - start)):
            for side in range(2):
                token = token_ids[end - 1 - j] if side else token_ids[start + j]
                word = 2 * np.int64(token) + side
                if not maybe[word & (_SLOTS - 1)]:
                    continue
                low, high = 0, len(words)
                while low < high:
                    middle = (low + high) >> 1
                    if words[middle] < word:
                        low = middle + 1
                    else:
                        high = middle
                if low < len(words) and words[low] == word and last_seen[low] < i:
                    last_seen[low] = i
                    found[i, count] = low
                    squares += weights[low] * weights[low]
                    count += 1
        norm[i] = 1.0 / np.sqrt(squares) if squares > 0.0 else 0.0
    return found, norm

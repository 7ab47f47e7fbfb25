"""Buckets of a prompt's words, written plainly."""

import re

import numpy as np

PRIME, MIX, PAIR = 1099511628211, 0x9E3779B97F4A7C15, 0x94D049BB133111EB
WRAP = 1 << 64
# A run of letters and digits; a character of a script without spaces; any other but white space.
WORD = re.compile(
    rb"(?P<word>[A-Za-z0-9\x80-\xe2\xf0-\xff]+)|(?P<script>[\xe3-\xef].{0,2})|[^\x00\t\r ]",
    re.DOTALL,
)


def words_of_bytes(text: bytes) -> list[int]:
    """A number for each word."""
    found = []
    for match in WORD.finditer(text):
        word = match.group()
        if match.lastgroup == "word":
            word = re.sub(rb"[0-9]", b"0", word.lower())
            number = 0
            for byte in word:
                number = (number * PRIME + byte + 1) % WRAP
        else:
            number = word[0] + 1
            for byte in word[1:]:
                number = (number * PRIME + byte) % WRAP
        found.append(number)
    return found


def words_of_tokens(tokens: list[int]) -> list[int]:
    """A number for each token."""
    return [token + 1 for token in tokens]


def buckets_of(windows: list[list[int]], buckets: int) -> set[int]:
    """Buckets of the words and pairs of both windows."""
    found = set()
    for place, words in enumerate(windows):
        before = 0
        for word in words:
            for key in (word, (before * PRIME + word + PAIR) % WRAP):
                found.add(place * buckets + ((key * MIX % WRAP) >> 32) % buckets)
            before = word
    return found


def components_of(buckets: list[set[int]], rare: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Sum of what each prompt's buckets add, over the length of their weights."""
    rows = []
    for one in buckets:
        chosen = sorted(one)
        length = float(np.sqrt((rare[chosen].astype(np.float64) ** 2).sum()))
        total = directions[chosen].astype(np.float64).sum(axis=0)
        rows.append(total / length if length else total)
    return np.array(rows)

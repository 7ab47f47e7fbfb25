"""Lexicographic order of all prompts, with the common prefix of neighbours."""

import numpy as np
from numpy.typing import NDArray

from blendplan.kernels.kernel import kernel

# Stands for "the prompt ends here" among next tokens; below every int32, so that a prompt sorts
# before the prompts it is a prefix of.
END = -(2**40)


def sorted_order(
    token_ids: NDArray[np.int32], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Sort prompts by their token ids; identical prompts keep their input order.

    A merge sort that carries, with each prompt, its common prefix with the one before it in its
    run and the first token after that prefix (LCP merge sort: Ng and Kakehi, 2008). A token known
    to be shared is never compared again, so the work is n log n steps plus one pass over the
    distinguishing prefixes, whatever the prompts look like. Scratch memory is 40 bytes a request;
    the tokens are not copied.

    Args:
        token_ids: all prompts one after the other; int32 [total].
        offsets: prompt i is ``token_ids[offsets[i]:offsets[i + 1]]``; int64 [n + 1].

    Returns:
        The order, int64 [n], and for each place in it the tokens shared with the prompt one place
        before (0 for the first); int32 [n].
    """
    return _merge_sort(token_ids, offsets)


@kernel
def _merge_sort(
    token_ids: NDArray[np.int32], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    n = len(offsets) - 1
    rows = np.arange(n)
    shared = np.zeros(n, dtype=np.int32)
    following = np.empty(n, dtype=np.int64)
    for i in range(n):
        following[i] = _token_at(token_ids, offsets, i, 0)
    next_rows = np.empty_like(rows)
    next_shared = np.empty_like(shared)
    next_following = np.empty_like(following)
    width = 1
    while width < n:
        for low in range(0, n, 2 * width):
            middle = min(low + width, n)
            high = min(low + 2 * width, n)
            _merge(
                token_ids, offsets, low, middle, high,
                rows, shared, following, next_rows, next_shared, next_following,
            )  # fmt: skip
        rows, next_rows = next_rows, rows
        shared, next_shared = next_shared, shared
        following, next_following = next_following, following
        width *= 2
    return rows, shared


@kernel
def _merge(
    token_ids: NDArray[np.int32],
    offsets: NDArray[np.int64],
    low: int,
    middle: int,
    high: int,
    rows: NDArray[np.int64],
    shared: NDArray[np.int32],
    following: NDArray[np.int64],
    out_rows: NDArray[np.int64],
    out_shared: NDArray[np.int32],
    out_following: NDArray[np.int64],
) -> None:
    """Merge the sorted runs ``[low, middle)`` and ``[middle, high)``.

    Invariant: ``a_shared`` and ``b_shared`` are the tokens that the heads of the two runs share
    with the prompt last put out, ``a_next`` and ``b_next`` their tokens right after. Both heads are
    not smaller than that prompt, so the head that shares more of it is the smaller one, and when
    both share the same the next tokens decide; only equal next tokens make us read the prompts.
    """
    a = low
    b = middle
    out = low
    if b < high:
        a_shared, a_next = shared[a], following[a]
        b_shared, b_next = shared[b], following[b]
        while True:
            take_a = True
            if a_shared != b_shared:
                take_a = a_shared > b_shared
                out_shared[out] = max(a_shared, b_shared)
                out_following[out] = a_next if take_a else b_next
            else:
                out_shared[out] = a_shared
                if a_next != b_next or a_next == END:
                    take_a = a_next <= b_next
                    out_following[out] = a_next if take_a else b_next
                else:
                    out_following[out] = a_next
                    common = _common_prefix(token_ids, offsets, rows[a], rows[b], a_shared + 1)
                    a_token = _token_at(token_ids, offsets, rows[a], common)
                    b_token = _token_at(token_ids, offsets, rows[b], common)
                    take_a = a_token <= b_token
                    if take_a:
                        b_shared, b_next = np.int32(common), b_token
                    else:
                        a_shared, a_next = np.int32(common), a_token
            if take_a:
                out_rows[out] = rows[a]
                out += 1
                a += 1
                if a == middle:
                    break
                a_shared, a_next = shared[a], following[a]
            else:
                out_rows[out] = rows[b]
                out += 1
                b += 1
                if b == high:
                    break
                b_shared, b_next = shared[b], following[b]
        # The head of the run that is left has been compared with what was put out last.
        if a < middle:
            shared[a], following[a] = a_shared, a_next
        else:
            shared[b], following[b] = b_shared, b_next
    while a < middle:
        out_rows[out], out_shared[out], out_following[out] = rows[a], shared[a], following[a]
        out += 1
        a += 1
    while b < high:
        out_rows[out], out_shared[out], out_following[out] = rows[b], shared[b], following[b]
        out += 1
        b += 1


@kernel
def _token_at(
    token_ids: NDArray[np.int32], offsets: NDArray[np.int64], row: int, position: int
) -> int:
    """Token of a prompt at a position, `END` past its last."""
    place = offsets[row] + position
    return int(token_ids[place]) if place < offsets[row + 1] else END


@kernel
def _common_prefix(
    token_ids: NDArray[np.int32], offsets: NDArray[np.int64], row: int, other: int, known: int
) -> int:
    """Tokens two prompts share, given that they share ``known``."""
    tokens = min(offsets[row + 1] - offsets[row], offsets[other + 1] - offsets[other])
    a = token_ids[offsets[row] : offsets[row] + tokens]
    b = token_ids[offsets[other] : offsets[other] + tokens]
    i = known
    # Sixteen tokens at a time, without a branch between them, is one or two vector instructions.
    while i + 16 <= tokens:
        difference = np.int32(0)
        for j in range(i, i + 16):
            difference |= a[j] ^ b[j]
        if difference != 0:
            break
        i += 16
    while i < tokens and a[i] == b[i]:
        i += 1
    return i

"""`Sequences`: what an engine runs for a request set, one sequence for each answer asked for."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from blendplan.errors import BlendplanError
from blendplan.offsets import offsets_of
from blendplan.requests.columns import Requests

Values = TypeVar("Values", bound=np.generic)

# More sequences than this are no job for one plan: each takes some hundred bytes while it is made.
MOST_SEQUENCES = 1 << 28


@dataclass(frozen=True)
class Sequences:
    """The s sequences of n requests: those of the first request, then those of the second, ...

    Sequences of one request have the same prompt, and whatever is known or predicted of their
    request. An engine is given all of them at once.

    Attributes:
        requests: n.
        offsets: request r's sequences are ``offsets[r]`` to ``offsets[r + 1]``; int64 [n + 1]. None
            where every request is one sequence, which then has the number of its request.
    """

    requests: int
    offsets: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return self.requests if self.offsets is None else int(self.offsets[-1])

    @property
    def request(self) -> NDArray[np.int64] | None:
        """Request of each sequence, int64 [s]; None where every request is one sequence."""
        if self.offsets is None:
            return None
        return np.repeat(np.arange(self.requests), np.diff(self.offsets))

    @property
    def answer(self) -> NDArray[np.int32]:
        """Which answer of its request each sequence is, from 0; int32 [s]."""
        if self.offsets is None:
            return np.zeros(self.requests, np.int32)
        ends = np.repeat(self.offsets[:-1], np.diff(self.offsets))
        return (np.arange(len(self)) - ends).astype(np.int32)

    def spread(self, values: NDArray[Values]) -> NDArray[Values]:
        """A column of the requests as one of the sequences; [n, ...] to [s, ...]."""
        if self.offsets is None:
            return values
        return np.repeat(values, np.diff(self.offsets), axis=0)

    def first(self) -> NDArray[np.int64]:
        """The first sequence of each request; int64 [n]."""
        return np.arange(self.requests) if self.offsets is None else self.offsets[:-1]

    def of(self, requests: NDArray[np.int64]) -> NDArray[np.int64]:
        """The sequences of some requests, in that order; int64."""
        if self.offsets is None:
            return requests
        sizes = np.diff(self.offsets)[requests]
        steps = np.arange(int(sizes.sum())) - np.repeat(offsets_of(sizes)[:-1], sizes)
        return np.repeat(self.offsets[requests], sizes) + steps


def sequences_of(requests: Requests) -> Sequences:
    """The sequences of all requests.

    Raises:
        BlendplanError: there are more than `MOST_SEQUENCES`.
    """
    if requests.answers is None:
        return Sequences(len(requests))
    offsets = offsets_of(requests.answers.astype(np.int64))
    if offsets[-1] > MOST_SEQUENCES:
        raise BlendplanError(
            f"{requests.source or 'the request set'} asks for {offsets[-1]} answers in all; plan "
            f"at most {MOST_SEQUENCES} at once"
        )
    return Sequences(len(requests), offsets)

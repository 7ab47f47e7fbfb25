"""`Rows`: lengths of requests before they have token ids."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Rows:
    """Lengths of k requests of one source.

    A prompt is the prefix of its group, where it has one, followed by tokens of its own.

    Attributes:
        own_tokens: prompt tokens that belong to the request alone, at least 1; int32 [k].
        output_tokens: at least 1; int32 [k].
        group: number of its group, -1 for none; int32 [k].
        group_tokens: length of each group's common prefix; int32 [g].
    """

    own_tokens: NDArray[np.int32]
    output_tokens: NDArray[np.int32]
    group: NDArray[np.int32]
    group_tokens: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.own_tokens)

    @property
    def prefix_tokens(self) -> NDArray[np.int32]:
        """Length of the common prefix of each request, 0 where it has none; int32 [k]."""
        with_none = np.append(self.group_tokens, 0).astype(np.int32)
        return with_none[self.group]

    def take(self, chosen: NDArray[np.int64]) -> "Rows":
        """The requests at the given positions, in that order."""
        return Rows(
            self.own_tokens[chosen],
            self.output_tokens[chosen],
            self.group[chosen],
            self.group_tokens,
        )


def plain_rows(prompt_tokens: NDArray[np.int32], output_tokens: NDArray[np.int32]) -> Rows:
    """Requests without groups."""
    group = np.full(len(prompt_tokens), -1, np.int32)
    return Rows(prompt_tokens, output_tokens, group, np.empty(0, np.int32))

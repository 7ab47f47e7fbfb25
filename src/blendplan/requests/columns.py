"""`Requests`: a request set as columns."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


@dataclass(frozen=True)
class Requests:
    """A set of n requests as columns, in file order.

    Attributes:
        ids: unique request ids, Arrow large_string [n].
        source_row: row of each request in its file, from 0; int64 [n].
        token_ids: all prompts one after the other; int32 [total].
        offsets: prompt i is ``token_ids[offsets[i]:offsets[i + 1]]``; int64 [n + 1].
        output_tokens: output length where the request states it, else -1; int32 [n].
        max_tokens: cap on the output length where the request states one, else -1; int32 [n].
        bodies: each request's own JSON, Arrow large_binary [n]; None when no request has one.
        estimated_tokens: True when ``token_ids`` come from the built-in four-bytes-a-token
            estimate, so that an engine must be given text instead.
        source: the file that was read, None for requests made in memory.
        sha256: hexadecimal digest of that file's bytes, empty for requests made in memory.
    """

    ids: pa.Array
    source_row: NDArray[np.int64]
    token_ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    output_tokens: NDArray[np.int32]
    max_tokens: NDArray[np.int32]
    bodies: pa.Array | None = None
    estimated_tokens: bool = False
    source: Path | None = None
    sha256: str = ""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def prompt_tokens(self) -> NDArray[np.int32]:
        """Prompt length of each request in tokens; int32 [n]."""
        return np.diff(self.offsets).astype(np.int32)

    def prompt_tokens_of(self, requests: NDArray[np.int64]) -> NDArray[np.int32]:
        """Prompt length of some requests in tokens; int32 [len(requests)]."""
        return (self.offsets[requests + 1] - self.offsets[requests]).astype(np.int32)

    def prompt(self, request: int) -> NDArray[np.int32]:
        """Token ids of one prompt, a view; int32 [p]."""
        return self.token_ids[self.offsets[request] : self.offsets[request + 1]]

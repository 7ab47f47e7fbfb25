"""`Tokens`: turns the text of checked records into token ids; `Estimate` is the built-in one."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from blendplan.requests.estimate import estimate_tokens
from blendplan.requests.record import Record, utf8
from blendplan.requests.rendering import render


class PreparedText(NamedTuple):
    """A prompt as text, ready to be turned into token ids.

    `exact` tells whether its token ids will be those that an engine would see.
    """

    text: bytes
    add_special_tokens: bool
    exact: bool


class Tokens(Protocol):
    """Turns the text of checked records into token ids."""

    def prepare(self, record: Record) -> PreparedText:
        """The text of a record without token ids; raises `BadRecordError`."""

    def encode(self, texts: Sequence[PreparedText]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Token ids of all texts, int32 [total], and the number of each, int64 [n]."""


class Estimate:
    """The built-in estimate as `Tokens`."""

    def prepare(self, record: Record) -> PreparedText:
        """The prompt, or messages written out in a fixed form."""
        return PreparedText(utf8(render(record), "the prompt"), False, exact=False)

    def encode(self, texts: Sequence[PreparedText]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Four bytes a token."""
        return estimate_tokens(pa.array([text.text for text in texts], pa.large_binary()))

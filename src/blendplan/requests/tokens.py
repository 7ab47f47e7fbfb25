"""`Tokens`: turns the text of checked records into token ids; `Estimate` is the built-in one."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from blendplan.kernels.kernel import kernel
from blendplan.offsets import offsets_of
from blendplan.requests.media import Media
from blendplan.requests.messages import content_text, part_kind
from blendplan.requests.record import Record, compact_json, utf8

TokenIds = NDArray[np.int32]


class PreparedText(NamedTuple):
    """Text ready to be turned into token ids."""

    text: bytes
    add_special_tokens: bool


class Prepared(NamedTuple):
    """A prompt ready to be turned into token ids: the texts it is made of.

    `exact` tells whether its token ids will be those that an engine would see. `join` makes one
    prompt of the token ids of the texts; without it there is one text, and its ids are the prompt.
    """

    texts: tuple[PreparedText, ...]
    exact: bool
    join: Callable[[Sequence[TokenIds]], TokenIds] | None = None


class Tokens(Protocol):
    """Turns the text of checked records into token ids."""

    def prepare(self, record: Record) -> Prepared:
        """The texts of a record without token ids; raises `BadRecordError`."""

    def encode(self, texts: Sequence[PreparedText]) -> tuple[TokenIds, NDArray[np.int64]]:
        """Token ids of all texts, int32 [total], and the number of each, int64 [n]."""


class Estimate:
    """The built-in estimate as `Tokens`."""

    def __init__(self, media: Media | None = None) -> None:
        self._media = media or Media(None)

    def prepare(self, record: Record) -> Prepared:
        """The prompt, or messages written out in a fixed form."""
        texts = record.texts or pieces(record)
        prepared = tuple(PreparedText(utf8(text, "the prompt"), False) for text in texts)
        media = self._media.of(record)
        if len(texts) == 1 and not media:
            return Prepared(prepared, exact=False)
        return Prepared(prepared, exact=False, join=lambda ids: self._media.between(ids, media))

    def encode(self, texts: Sequence[PreparedText]) -> tuple[TokenIds, NDArray[np.int64]]:
        """Four bytes a token."""
        return estimate_tokens(pa.array([text.text for text in texts], pa.large_binary()))


BYTES_PER_TOKEN = 4


def estimate_tokens(texts: pa.Array) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Token ids of each text, one after the other, and how many each text has.

    Args:
        texts: large_binary or large_string [n], no nulls.

    Returns:
        token ids, int32 [total]: four bytes each, little-endian, the last group filled with zeros
        (so an id may be negative); and lengths, int64 [n].
    """
    offsets, data = binary_parts(texts)
    lengths = -(-np.diff(offsets) // BYTES_PER_TOKEN)
    groups = np.zeros(int(lengths.sum()) * BYTES_PER_TOKEN, np.uint8)
    _pack(data, offsets, groups)
    return groups.view("<i4").astype(np.int32, copy=False), lengths


def binary_parts(values: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Offsets, int64 [n + 1], and bytes, uint8, of a large_binary or large_string array."""
    _, offset_buffer, data_buffer = values.buffers()
    end = values.offset + len(values) + 1
    offsets = np.frombuffer(offset_buffer, np.int64)[values.offset : end]
    return offsets, np.frombuffer(data_buffer or b"", np.uint8)


@kernel
def put(
    groups: NDArray[np.uint8], place: int, data: NDArray[np.uint8], start: int, end: int
) -> int:
    """Copy ``data[start:end]`` to `place`; returns where the next piece goes."""
    # Over slices, the compiler knows that no index is negative and copies many bytes at a time.
    source = data[start:end]
    target = groups[place : place + len(source)]
    for i in range(len(source)):
        target[i] = source[i]
    return place + len(source)


@kernel
def _pack(data: NDArray[np.uint8], offsets: NDArray[np.int64], groups: NDArray[np.uint8]) -> None:
    """Copy each text to the next multiple of four bytes in `groups`, which is zero before."""
    place = 0
    for text in range(len(offsets) - 1):
        place = put(groups, place, data, offsets[text], offsets[text + 1])
        place = (place + 3) // 4 * 4


_OPENING, _MIDDLE, _END = "<|", "|>\n", "<|end|>\n"
_CLOSING = "<|assistant|>\n"


_EXTRAS = ("name", "tool_calls", "tool_call_id")


_FRAME = tuple(
    np.frombuffer(part.encode(), np.uint8) for part in (_OPENING, _MIDDLE, _END, _CLOSING)
)


def render(record: Record) -> str:
    """Text of a prompt that was not given as token ids.

    Raises:
        BadRecordError: tools or tool calls are nested too deeply.
    """
    return "".join(record.texts or pieces(record))


def pieces(record: Record) -> tuple[str, ...]:
    """The text of messages in a fixed form, cut where images, audio or videos are.

    Raises:
        BadRecordError: as `render`.
    """
    tools = record.body.get("tools")
    parts = [] if tools is None else [_OPENING, "tools", _MIDDLE, compact_json(tools), _END]
    cut: list[str] = []
    for message in record.messages or []:
        extras = {key: message[key] for key in _EXTRAS if message.get(key) is not None}
        tail = compact_json(extras) if extras else ""
        content = message.get("content")
        parts += [_OPENING, message["role"], _MIDDLE]
        for part in content if isinstance(content, list) else []:
            if part_kind(part) in ("image", "audio", "video"):
                cut.append("".join(parts))
                parts = []
        parts += [content_text(content), tail, _END]
    return (*cut, "".join([*parts, _CLOSING]))


def estimate_messages(messages: pa.ListArray) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Estimated token ids of conversations, as of their rendered text.

    Args:
        messages: list of struct with the strings ``role`` and ``content``, nothing null; [n].

    Returns:
        token ids, int32 [total], and lengths, int64 [n]; see `estimate_tokens`.
    """
    turns = offsets_of(messages.value_lengths().to_numpy())
    flat = messages.flatten()
    roles = binary_parts(pc.struct_field(flat, "role").cast(pa.large_string()))
    contents = binary_parts(pc.struct_field(flat, "content").cast(pa.large_string()))
    text_bytes = np.diff(roles[0]) + np.diff(contents[0]) + sum(len(part) for part in _FRAME[:3])
    sizes = np.add.reduceat(text_bytes, turns[:-1]) + len(_FRAME[3])
    lengths = -(-sizes // BYTES_PER_TOKEN)
    groups = np.zeros(int(lengths.sum()) * BYTES_PER_TOKEN, np.uint8)
    _pack_messages(turns, roles, contents, _FRAME, groups)
    return groups.view("<i4").astype(np.int32, copy=False), lengths


@kernel
def _pack_messages(
    turns: NDArray[np.int64],
    roles: tuple[NDArray[np.int64], NDArray[np.uint8]],
    contents: tuple[NDArray[np.int64], NDArray[np.uint8]],
    frame: tuple[NDArray[np.uint8], ...],
    groups: NDArray[np.uint8],
) -> None:
    """Write each conversation at the next multiple of four bytes in `groups`, zero before."""
    role_offsets, role_bytes = roles
    content_offsets, content_bytes = contents
    opening, middle, end, closing = frame
    place = 0
    for conversation in range(len(turns) - 1):
        for turn in range(turns[conversation], turns[conversation + 1]):
            place = put(groups, place, opening, 0, len(opening))
            place = put(groups, place, role_bytes, role_offsets[turn], role_offsets[turn + 1])
            place = put(groups, place, middle, 0, len(middle))
            place = put(
                groups, place, content_bytes, content_offsets[turn], content_offsets[turn + 1]
            )
            place = put(groups, place, end, 0, len(end))
        place = put(groups, place, closing, 0, len(closing))
        place = (place + 3) // 4 * 4

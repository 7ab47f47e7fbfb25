"""`Tokenizer`: text and messages to token ids with the model's own tokenizer and chat template."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from blendplan.requests import remarks
from blendplan.requests.bad import utf8
from blendplan.requests.chat_template import ChatTemplates
from blendplan.requests.endpoints import CHAT
from blendplan.requests.load_tokenizer import Encoder, load_tokenizer
from blendplan.requests.media import Media, in_place
from blendplan.requests.record import Record, read_count
from blendplan.requests.remarks import Remarks
from blendplan.requests.tokens import Prepared, PreparedText, TokenIds, pieces

_TEXT_BYTES_AT_ONCE = 1 << 20  # bounds the memory that the encodings take


class Tokenizer:
    """The tokenizer of a model directory and the chat templates beside it, as `Tokens`.

    Without a template, messages are written out in a fixed form, and such prompts are not exact.

    Args:
        directory: of the model.
        seen: told what a reader should know of the prompts.

    Raises:
        BlendplanError: a file is damaged, or a package that reads it is not installed.
    """

    def __init__(self, directory: Path, seen: Remarks) -> None:
        self._encoder: Encoder = load_tokenizer(directory)
        self._templates = ChatTemplates(directory)
        self._media = Media(directory)
        self._seen = seen
        text = self._templates.variables.get("bos_token")
        self._beginning = None if text is None else self._encoder.id_of(text)

    def prepare(self, record: Record) -> Prepared:
        """The prompt, or messages through the chat template."""
        keep = _kept_tokens(record)
        if record.messages is None:
            added = record.body.get("add_special_tokens") is not False
            texts = tuple(PreparedText(utf8(text, "the prompt"), added) for text in record.texts)
            if len(texts) == 1 and keep is None:
                return Prepared(texts, exact=True)
            around = self._special_tokens if added else np.empty(0, np.int32)
            return Prepared(
                texts, exact=True, join=lambda ids: _cut(np.concatenate(ids), keep, around)
            )
        media = self._media.of(record)
        if not self._templates:
            plain = (utf8(text, "the prompt") for text in pieces(record))
            texts = tuple(PreparedText(text, False) for text in plain)
            if not media:
                return Prepared(texts, exact=False)
            return Prepared(texts, exact=False, join=lambda ids: Media.between(ids, media))
        text = utf8(self._templates.render(record, self._media.placeholders), "the prompt")
        # The template writes special tokens itself, except where a request asks for more.
        added = record.body.get("add_special_tokens", record.endpoint != CHAT) is True
        texts = (PreparedText(text, added and record.endpoint != "responses"),)
        if not media and keep is None:
            return Prepared(texts, exact=True)
        allowed = [self._ids_of(self._media.stand_ins(medium.kind)) for medium in media.media]

        def join(ids: Sequence[TokenIds]) -> TokenIds:
            around = self._special_tokens if texts[0].add_special_tokens else np.empty(0, np.int32)
            return _cut(in_place(ids[0], media, allowed) if media else ids[0], keep, around)

        return Prepared(texts, exact=True, join=join)

    @cached_property
    def _special_tokens(self) -> TokenIds:
        """What the tokenizer puts around a text."""
        return self._encoder.encode([""], add_special_tokens=True)[0]

    def encode(self, texts: Sequence[PreparedText]) -> tuple[TokenIds, NDArray[np.int64]]:
        """Token ids, with the tokenizer's special tokens where the text lacks them."""
        ids: list[TokenIds] = []
        start = 0
        while start < len(texts):
            end, size = start, 0
            special = texts[start].add_special_tokens
            while (
                end < len(texts)
                and size < _TEXT_BYTES_AT_ONCE
                and texts[end].add_special_tokens == special
            ):
                size += len(texts[end].text)
                end += 1
            batch = [text.text.decode("utf-8") for text in texts[start:end]]
            encoded = self._encoder.encode(batch, add_special_tokens=special)
            if special:
                self._look_for_doubled_beginning(encoded)
            ids.extend(encoded)
            start = end
        if self._templates.developer:
            self._seen.count(remarks.DEVELOPER, self._templates.developer)
            self._templates.developer = 0
        return np.concatenate(ids), np.array([len(one) for one in ids], np.int64)

    def _look_for_doubled_beginning(self, encoded: Sequence[TokenIds]) -> None:
        twice = [self._beginning, self._beginning]
        doubled = sum(one[:2].tolist() == twice for one in encoded)
        if doubled and self._beginning is not None:
            self._seen.count(remarks.DOUBLED_BOS, doubled)

    def _ids_of(self, stand_ins: Sequence[str | int]) -> list[int]:
        ids = [self._encoder.id_of(one) if isinstance(one, str) else one for one in stand_ins]
        return [one for one in ids if one is not None]


def _kept_tokens(record: Record) -> tuple[int, object] | None:
    """How many tokens of the prompt the server keeps, and the side it cuts; None for all."""
    value = record.body.get("truncate_prompt_tokens")
    if value is None or value == -1:  # cut to the model's context, which no prompt may exceed
        return None
    count = read_count(record.body, "truncate_prompt_tokens")
    return count, record.body.get("truncation_side")


def _cut(ids: TokenIds, keep: tuple[int, object] | None, around: TokenIds) -> TokenIds:
    """The tokens that are kept: the last ones, where no side is stated.

    Then the tokenizer itself cuts, which keeps its special tokens `around` the text.
    """
    if keep is None or keep[0] >= len(ids):
        return ids
    count, side = keep
    if side is not None:
        return ids[:count] if side == "right" else ids[-count:]
    front = 0
    while front < len(around) and ids[front] == around[front]:
        front += 1
    return np.delete(ids, slice(front, front + len(ids) - count))

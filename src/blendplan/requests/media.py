"""Images, audio and videos of a prompt as tokens: how many, and equal only where they are equal.

An engine puts a number of equal placeholder tokens where an image is, and tells images apart in its
prefix cache by a digest of what is in them. In a planned prompt the tokens themselves come from
that digest: they are from `FIRST_MEDIA_TOKEN` on, where no vocabulary has any.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from blendplan.checks.json_files import parse_json_object, read_text
from blendplan.requests.bad import BadRecordError
from blendplan.requests.image_size import image_size
from blendplan.requests.media_rules import IMAGE_RULES, Rule
from blendplan.requests.messages import MEDIA_KINDS, media_parts
from blendplan.requests.record import Record

FIRST_MEDIA_TOKEN = 1 << 30
_STEP = 0x9E3779B1  # odd, so that the tokens of one image are all different
_HEAD_CHARACTERS = 1 << 18  # of base64; the size stands in front of the pixels
_REMEDY = "fetch the model's files again"
# The fields of config.json that say what a model's placeholder tokens are.
_TOKEN_FIELDS = {
    "image": ("image_token_id", "image_token_index"),
    "audio": ("audio_token_id", "audio_token_index"),
    "video": ("video_token_id", "video_token_index"),
}

TokenIds = NDArray[np.int32]


class Medium(NamedTuple):
    """An image, audio or video: its kind, a digest of what is in it, and how many tokens it is.

    `tokens` is -1 where only the stated length of the prompt tells.
    """

    kind: str
    digest: bytes
    tokens: int


class MediaOf(NamedTuple):
    """The media of one prompt, in order, and its length where the request states it, else -1."""

    media: tuple[Medium, ...]
    prompt_tokens: int

    def __bool__(self) -> bool:
        return bool(self.media)

    def token_ids(self, text_tokens: int) -> list[TokenIds]:
        """Tokens of each medium, in a prompt with so many tokens of text."""
        unknown = [medium for medium in self.media if medium.tokens < 0]
        known = sum(medium.tokens for medium in self.media if medium.tokens >= 0)
        left = max(self.prompt_tokens - text_tokens - known, len(unknown))
        ids = []
        for medium in self.media:
            count = medium.tokens
            if count < 0:
                count = left // len(unknown)
                left -= count
                unknown.pop()
            ids.append(media_token_ids(medium.digest, count))
        return ids


class Media:
    """What a model makes of images, audio and videos.

    Args:
        directory: of the model; None where no rule is known.
    """

    def __init__(self, directory: Path | None) -> None:
        self._config = _read(directory, "config.json")
        self._processor = _read(directory, "preprocessor_config.json")
        self._rule: Rule | None = IMAGE_RULES.get(str(self._config.get("model_type")))

    @property
    def placeholders(self) -> Mapping[str, str]:
        """What a server writes into a text for media of each kind, as far as that is known."""
        return {} if self._rule is None else {"image": self._rule.placeholder}

    def stand_ins(self, kind: str) -> tuple[str | int, ...]:
        """The tokens, as text or id, in whose place the tokens of media of a kind come."""
        numbers = [self._config.get(field) for field in _TOKEN_FIELDS[kind]]
        ids = tuple(number for number in numbers if type(number) is int)
        return (self._rule.token, *ids) if self._rule is not None and kind == "image" else ids

    def of(self, record: Record) -> MediaOf:
        """The media of a request.

        Raises:
            BadRecordError: nobody knows how many tokens one of them is.
        """
        found = []
        for where, kind, part in media_parts(record.messages or []):
            content, size = _content(part)
            rule = self._rule if kind == "image" else None
            tokens = None if rule is None else rule.tokens(self._config, self._processor, size)
            if tokens is None and record.prompt_tokens < 0:
                why = "for this model" if rule is None else "without its width and height"
                raise BadRecordError(
                    f"{where}: the tokens of its {kind} cannot be counted {why}; state the length "
                    'of the whole prompt as "prompt_tokens" in the line'
                )
            digest = hashlib.sha256(kind.encode() + b"\0" + content).digest()
            found.append(Medium(kind, digest, -1 if tokens is None else tokens))
        return MediaOf(tuple(found), record.prompt_tokens)

    @staticmethod
    def between(ids: Sequence[TokenIds], media: MediaOf) -> TokenIds:
        """Pieces of a prompt with the media between them; without media, one after the other."""
        inner = media.token_ids(sum(map(len, ids)))
        woven: list[TokenIds] = []
        for place, piece in enumerate(ids):
            woven += [piece, *inner[place : place + 1]]
        return np.concatenate(woven)


def in_place(ids: TokenIds, media: MediaOf, stand_ins: Sequence[Sequence[int]]) -> TokenIds:
    """A prompt with the tokens of its media in the place of their placeholders.

    Media for which none is left come at the end.

    Args:
        ids: token ids of the text, placeholders among them.
        media: of the prompt.
        stand_ins: of each medium, the ids that may stand for it.
    """
    places: list[int] = []
    start = 0
    for allowed in stand_ins:
        found = np.flatnonzero(np.isin(ids[start:], allowed))
        if not len(found):
            break
        places.append(start + int(found[0]))
        start = places[-1] + 1
    inner = media.token_ids(len(ids) - len(places))
    woven: list[TokenIds] = []
    start = 0
    for place, tokens in zip(places, inner, strict=False):
        woven += [ids[start:place], tokens]
        start = place + 1
    return np.concatenate([*woven, ids[start:], *inner[len(places) :]])


def media_token_ids(digest: bytes, count: int) -> TokenIds:
    """Tokens that stand for a medium in planned prompts; int32 [count]."""
    first = int.from_bytes(digest[:4], "little")
    mask = FIRST_MEDIA_TOKEN - 1
    steps = first + _STEP * np.arange(count, dtype=np.int64)
    return (FIRST_MEDIA_TOKEN + (steps & mask)).astype(np.int32)


def _content(part: Mapping[str, Any]) -> tuple[bytes, tuple[int, int] | None]:
    """What tells a medium from others, and the size of an image where the request holds it."""
    if part.get("uuid") is not None:  # which engines tell it by, too
        name = f"uuid {part['uuid']}".encode("utf-8", "replace")
    else:
        name = b""
    value = next((part[key] for key in MEDIA_KINDS if part.get(key) is not None), None)
    if isinstance(value, dict):
        value = value.get("url", value.get("data", value))
    if not isinstance(value, str):
        return name or json.dumps(value, sort_keys=True, default=str).encode(), None
    head, comma, data = value.partition(",")
    size = None
    if comma and head.startswith("data:") and head.endswith("base64"):
        try:
            size = image_size(base64.b64decode(data[:_HEAD_CHARACTERS]))
        except (binascii.Error, ValueError):
            size = None
    return name or value.encode("utf-8", "replace"), size


def _read(directory: Path | None, name: str) -> Mapping[str, Any]:
    if directory is None or not (directory / name).is_file():
        return {}
    path = directory / name
    return parse_json_object(read_text(path, str(path), _REMEDY), str(path))

"""Small text and JSON files of a model or a job: read, or refused in one line."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blendplan.errors import BlendplanError
from blendplan.printable import show

MOST_BYTES = 256 << 20  # a larger file is none of these


def read_text(path: Path, what: str, hint: str, kind: str = "JSON") -> str:
    """The text of a file.

    Args:
        path: of the file.
        what: what it is called in messages, with its path.
        hint: what to do where it cannot be read.
        kind: what its text is.

    Raises:
        BlendplanError: no such file, not readable, too large, or not UTF-8.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise BlendplanError(f"{what} is larger than {MOST_BYTES >> 20} MiB; {hint}")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BlendplanError(
            f"{what} is not {kind}: it cannot be read as UTF-8 (byte 0x{data[error.start]:02x} at "
            f"{error.start}); save it as UTF-8"
        ) from None
    except OSError as error:
        raise BlendplanError(f"{what}: {error.strerror or 'cannot be read'}; {hint}") from None
    except ValueError as error:
        if isinstance(error, BlendplanError):
            raise
        raise BlendplanError(f"{what}: {error}; {hint}") from None  # no name of a file


def parse_json_object(text: str, what: str) -> dict[str, Any]:
    """A JSON object in which no key stands twice.

    NaN and the infinities are read, as configs of published models have them; whoever reads such a
    field refuses them.

    Args:
        text: of the file.
        what: what it is called in messages.

    Raises:
        BlendplanError: anything else.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise BlendplanError(f"{what} has the key {show(twice)} twice; keep one of them")
        return found

    try:
        values = json.loads(text, object_pairs_hook=unique)
    except BlendplanError:
        raise
    except RecursionError:
        raise BlendplanError(f"{what} is nested too deeply; that is no such file") from None
    except ValueError as error:
        other = _other_kind(text)
        if other:
            raise BlendplanError(f"{what} is {other}") from None
        reason = str(error).split(";")[0]
        raise BlendplanError(f"{what} is not JSON: {reason}") from None
    if not isinstance(values, dict):
        raise BlendplanError(f"{what} is not a JSON object but {show(values)}")
    return values


def differing(now: Mapping[str, Any], before: Mapping[str, Any]) -> list[str]:
    """Names under which two JSON objects have other values, or only one of them has any."""
    return [name for name in {**now, **before} if before.get(name) != now.get(name)]


def _other_kind(text: str) -> str:
    """What a text is that was saved in place of the file, and what to do; empty if not known."""
    start = text[:200].lstrip().lower()
    if start.startswith("version https://git-lfs.github.com/"):
        return "a Git LFS pointer, not the file itself; fetch that with 'git lfs pull'"
    if start.startswith(("<!doctype html", "<html")):
        return "a web page (HTML), not JSON; download the file itself ('raw' on most sites)"
    return ""

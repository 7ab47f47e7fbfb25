"""What a reader should be told of a request file, each thing once, though many lines have it."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from blendplan.printable import show
from blendplan.requests.endpoints import OTHER_NAMES, is_known, is_known_of_plain_line

_MOST_NAMES = 8

WITHOUT_OUTPUT = "planned as prompts without output"
PREFILL_ONLY = "with max_tokens 0"
SEVERAL_TEXTS = "of several texts"
DOUBLED_BOS = "doubled beginning-of-text token"
DEVELOPER = "role developer"
MEDIA_STATED = "media by stated prompt_tokens"
OVER_CAP = "output_tokens above max_tokens"

_TEXTS = {
    WITHOUT_OUTPUT: (
        "{n} for embeddings, scores or rankings; planned with one output token each, which takes "
        "no step of its own"
    ),
    PREFILL_ONLY: '{n} with "max_tokens" 0; planned with one output token, which takes no step',
    SEVERAL_TEXTS: "{n} with several texts; the texts of a line are planned as one prompt",
    DOUBLED_BOS: (
        "{n} with the beginning-of-text token twice: the prompt has it and the tokenizer "
        'adds it; "add_special_tokens": false leaves it out'
    ),
    DEVELOPER: (
        '{n} with the role "developer", which the chat template does not know; as in the '
        "engine's server its messages become system messages"
    ),
    OVER_CAP: (
        '{n} with "output_tokens" above "max_tokens"; planned and run with "output_tokens", the '
        "known length"
    ),
    MEDIA_STATED: '{n} with images, audio or video counted by their stated "prompt_tokens"',
}


class Remarks:
    """Counts what is seen while a file is read; not for several threads at a time."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._unknown: dict[str, None] = {}
        self._renamed: dict[str, None] = {}
        self._saying: dict[str, None] = {}

    def count(self, what: str, requests: int = 1) -> None:
        """Requests of which one of the texts above is true."""
        self._counts[what] += requests

    def line(self, line: Mapping[str, Any]) -> None:
        """Look at the names of the fields of a line."""
        body = line.get("body")
        if isinstance(body, Mapping):
            self._see(name for name in line if not is_known(name, in_body=False))
            self._see(name for name in body if not is_known(name, in_body=True))
        else:
            self.names(line)

    def names(self, names: Iterable[str]) -> None:
        """Look at the names of the fields of a line that is its own body."""
        self._see(name for name in names if not is_known_of_plain_line(name))

    def saying(self, names: Iterable[str]) -> None:
        """Columns of data that are taken for parameters of the requests."""
        for name in names:
            self._saying.setdefault(name)

    def join(self, other: "Remarks") -> None:
        """Take over what was seen of another file."""
        self._counts.update(other._counts)
        for mine, theirs in (
            (self._unknown, other._unknown),
            (self._renamed, other._renamed),
            (self._saying, other._saying),
        ):
            for name in theirs:
                mine.setdefault(name)

    def _see(self, unknown: Iterable[str]) -> None:
        for name in unknown:
            (self._renamed if name in OTHER_NAMES else self._unknown).setdefault(name)

    def lines(self) -> tuple[str, ...]:
        """All remarks, one line each."""
        counted = [
            _TEXTS[what].replace("{n}", _requests(count)) for what, count in self._counts.items()
        ]
        renamed = [
            f"engines pass over the field {show(name)}; {OTHER_NAMES[name]}"
            for name in self._renamed
        ]
        unknown: list[str] = []
        if self._unknown:
            shown = ", ".join(show(name) for name in list(self._unknown)[:_MOST_NAMES])
            more = len(self._unknown) - _MOST_NAMES
            rest = f" and {more} more" if more > 0 else ""
            unknown = [f"kept and passed on, though no engine knows these fields: {shown}{rest}"]
        saying: list[str] = []
        if self._saying:
            shown = ", ".join(show(name) for name in self._saying)
            saying = [f"taken for parameters of the requests, as their names say: {shown}"]
        return (*saying, *unknown, *renamed, *counted)


def _requests(count: int) -> str:
    return f"{count} request" if count == 1 else f"{count} requests"

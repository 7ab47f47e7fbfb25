"""Arguments of public functions, checked one by one: a wrong one is named, shown and put right.

Every check gives back the plain Python value, so that what follows, and the metadata of a plan,
never holds a numpy scalar.
"""

import errno
import operator
import os
from collections.abc import Iterable, Mapping
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from blendplan.checks.ranges import RANGES
from blendplan.errors import BlendplanError
from blendplan.names import unknown
from blendplan.printable import show

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")

LONGEST_NAME = 200  # longer is no name of anything here
LONGEST_PATH = 4096


def whole(name: str, value: object, least: int | None = None, most: int | None = None) -> int:
    """A whole number within its bounds; by default those of that name in `RANGES`.

    Raises:
        BlendplanError: a truth value, a fraction, no number, or out of bounds.

    >>> whole("tp", 2)
    2
    """
    if least is None or most is None:
        least, most = RANGES[name]
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise _wrong(name, value, f"give a whole number from {least} to {most}") from None
    if not least <= number <= most:
        raise _wrong(name, number, f"give a whole number from {least} to {most}")
    return number


def whole_numbers(name: str, values: object, least: int, most: int) -> "NDArray[np.int64]":
    """A flat array of whole numbers within their bounds; int64 [k].

    Raises:
        BlendplanError: no flat list or array, or a number that is no whole one or out of bounds.
    """
    import numpy as np  # the command line checks options without it

    right = f"give a flat list or array of whole numbers from {least} to {most}"
    if isinstance(values, np.ndarray):
        if values.ndim == 1 and values.dtype.kind in "iu":
            wrong = np.flatnonzero((values < least) | (values > most))
            if len(wrong):
                raise _wrong(f"{name}[{wrong[0]}]", int(values[wrong[0]]), right)
            return values.astype(np.int64, copy=False)
        raise _wrong(name, values, right)
    if not isinstance(values, Iterable) or isinstance(values, str | bytes | Mapping):
        raise _wrong(name, values, right)
    checked = [whole(f"{name}[{place}]", value, least, most) for place, value in enumerate(values)]
    return np.array(checked, np.int64)


def number(
    name: str, value: object, least: float, most: float, *, above_least: bool = False
) -> float:
    """A number within its bounds, the least one itself excluded where ``above_least`` says so.

    Raises:
        BlendplanError: a truth value, not a number, or out of bounds.
    """
    bounds = f"give a number {'above' if above_least else 'from'} {least:g} to {most:g}"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise _wrong(name, value, bounds)
    try:
        number = float(value)
    except OverflowError:
        raise _wrong(name, value, bounds) from None
    if not least <= number <= most or (above_least and number == least):
        raise _wrong(name, number, bounds)
    return number


def flag(name: str, value: object) -> bool:
    """True or False.

    Raises:
        BlendplanError: anything else.
    """
    if value is not True and value is not False:
        raise _wrong(name, value, "give True or False")
    return value


def text(
    name: str, value: object, right: str = "give a text", *, longest: int = LONGEST_NAME
) -> str:
    """A text of 1 to ``longest`` characters; ``right`` says what it should be.

    Raises:
        BlendplanError: anything else.
    """
    if not isinstance(value, str) or not value:
        raise _wrong(name, value, right)
    if len(value) > longest:
        raise _wrong(name, value, f"{right}, of at most {longest} characters")
    return str(value)


def one_of(name: str, value: object, known: Iterable[str]) -> str:
    """One of a few names.

    Raises:
        BlendplanError: not a text, or none of them, with the nearest ones.
    """
    names = list(known)
    word = text(name, value, f"give one of {', '.join(names)}")
    if word not in names:
        raise BlendplanError(unknown(name, word, names))
    return word


def path(name: str, value: object) -> Path:
    """The path of a file or folder, which need not exist.

    Raises:
        BlendplanError: not a text or a path, or one that no file can have.
    """
    if not isinstance(value, str | os.PathLike) or not str(value):
        raise _wrong(name, value, "give the path of a file, as a text or a Path")
    words = os.fspath(value)
    if not isinstance(words, str):
        raise _wrong(name, words, "give the path of a file, as a text or a Path")
    if "\0" in words:
        raise _wrong(name, words, "a path holds no null character")
    try:
        Path(words).stat()
    except OSError as error:  # whoever opens it says what is wrong, but for what nobody can name
        if error.errno == errno.ENAMETOOLONG:
            raise _wrong(name, words, "the name is too long for a file") from None
    except ValueError:
        raise _wrong(name, words, "no file can have that name") from None
    return Path(words)


def dictionary(name: str, value: object, right: str) -> dict[str, Any]:
    """A dictionary with texts as keys; ``right`` says what it should hold.

    Raises:
        BlendplanError: anything else.
    """
    if not isinstance(value, Mapping):
        raise _wrong(name, value, right)
    return {text(f"a key of {name}", key, right): item for key, item in value.items()}


def instance(name: str, value: object, kind: type[T], right: str) -> T:
    """An object of one kind; ``right`` says where such an object comes from.

    Raises:
        BlendplanError: anything else.
    """
    if not isinstance(value, kind):
        raise _wrong(name, value, right)
    return value


def function(name: str, value: object) -> None:
    """Refuse what cannot be called.

    Raises:
        BlendplanError: it cannot be called.
    """
    if not callable(value):
        raise _wrong(name, value, "give a function")


def keywords(of: str, given: Mapping[str, object], known: Iterable[str]) -> None:
    """Refuse keyword arguments that a function does not take, with the nearest names.

    Raises:
        BlendplanError: the first unknown one.
    """
    names = list(known)
    for word in given:
        if word not in names:
            raise BlendplanError(unknown(f"argument of {of}()", word, names))


def _wrong(name: str, value: object, right: str) -> BlendplanError:
    return BlendplanError(f"{name} is {show(value)}; {right}")

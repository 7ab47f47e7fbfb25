"""Loading the tokenizer of a model directory, with as little as that takes.

``tokenizer.json`` says all of what ``tokenizers`` needs. But the servers of vLLM and SGLang load
tokenizers through ``transformers``, whose classes for some models build them anew from the
vocabulary, and which reads folders without ``tokenizer.json``. Those go the same way here, where
``transformers`` is installed; importing it takes seconds.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from blendplan.checks.json_files import parse_json_object, read_text
from blendplan.errors import BlendplanError

FILE = "tokenizer.json"
# Other files of which `transformers` makes a tokenizer.
OTHER_FILES = ("tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")
# Classes that take tokenizer.json as it is.
_AS_IT_IS = (None, "PreTrainedTokenizerFast", "TokenizersBackend")
_EXTRA = "pip install 'blendplan[tokenizers]'"
_REMEDY = "fetch the model's files again"


class Encoder(Protocol):
    """Texts to token ids."""

    def encode(self, texts: Sequence[str], *, add_special_tokens: bool) -> list[NDArray[np.int32]]:
        """Token ids of each text, with the tokenizer's special tokens where asked for."""

    def id_of(self, token: str) -> int | None:
        """The id of one token by its text; None where there is none."""


def has_tokenizer(directory: Path) -> bool:
    """Whether a directory has a tokenizer that can be loaded here."""
    if (directory / FILE).is_file():
        return True
    return _has_transformers() and any((directory / name).is_file() for name in OTHER_FILES)


def load_tokenizer(directory: Path) -> Encoder:
    """The tokenizer of a directory.

    Raises:
        BlendplanError: a file is damaged, or a package that reads it is not installed.
    """
    path = directory / FILE
    if not path.is_file() or (_has_transformers() and _class(directory) not in _AS_IT_IS):
        return _through_transformers(directory)
    try:
        import tokenizers
    except ImportError as error:
        raise BlendplanError(f"{path} needs the tokenizers package; {_EXTRA}") from error
    try:
        loaded = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises bare Exception
        raise BlendplanError(f"{path} is not a tokenizer ({_line(error)})") from error
    return _Fast(loaded)


def _through_transformers(directory: Path) -> Encoder:
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(str(directory), local_files_only=True)
    except Exception as error:  # anything, from damaged files to packages of the model's own
        raise BlendplanError(
            f"{directory} holds no tokenizer that transformers can load ({_line(error)}); {_REMEDY}"
        ) from error
    backend = getattr(loaded, "backend_tokenizer", None)
    return _Slow(loaded) if backend is None else _Fast(backend)


class _Fast:
    def __init__(self, tokenizer: Any) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        # The fast call leaves out character offsets; releases before 0.20.1 lack it.
        self._encode_batch = getattr(tokenizer, "encode_batch_fast", tokenizer.encode_batch)

    def encode(self, texts: Sequence[str], *, add_special_tokens: bool) -> list[NDArray[np.int32]]:
        try:
            encoded = self._encode_batch(texts, add_special_tokens=add_special_tokens)
        except Exception as error:  # such as a vocabulary without an unknown token
            raise _cannot_take(error) from error
        return [np.array(one.ids, np.int32) for one in encoded]

    def id_of(self, token: str) -> int | None:
        found: int | None = self._tokenizer.token_to_id(token)
        return found


class _Slow:
    """A tokenizer in Python."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def encode(self, texts: Sequence[str], *, add_special_tokens: bool) -> list[NDArray[np.int32]]:
        try:
            return [
                np.array(self._tokenizer.encode(text, add_special_tokens=add_special_tokens), "i4")
                for text in texts
            ]
        except Exception as error:
            raise _cannot_take(error) from error

    def id_of(self, token: str) -> int | None:
        found: int | None = self._tokenizer.get_vocab().get(token)
        return found


def _cannot_take(error: Exception) -> BlendplanError:
    return BlendplanError(
        f"the tokenizer cannot take a prompt ({_line(error)}); check tokenizer.json"
    )


def _has_transformers() -> bool:
    try:
        return find_spec("transformers") is not None
    except (ImportError, ValueError):
        return False


def _class(directory: Path) -> object:
    """The tokenizer's class as the model's files name it."""
    path = directory / "tokenizer_config.json"
    if not path.is_file():
        return None
    return parse_json_object(read_text(path, str(path), _REMEDY), str(path)).get("tokenizer_class")


def _line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:120]

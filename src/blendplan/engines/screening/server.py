"""`Server`: what is known of an engine's server before it is started."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_SENSES = ("vision", "audio", "visual", "image", "video", "speech", "thinker")


@dataclass(frozen=True)
class Server:
    """How a server will be started, as far as it decides what the server takes.

    Attributes:
        max_model_len: longest context.
        max_num_seqs: most sequences that run at once.
        vocab: token ids of the model.
        multimodal: whether the model takes anything but text; None where that is not known.
        arguments: the engine's own, by its own names.
    """

    max_model_len: int
    max_num_seqs: int
    vocab: int
    multimodal: bool | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def argument(self, *names: str) -> Any:
        """The first of these arguments that is given and says something, else None."""
        return next((self.arguments[name] for name in names if self.arguments.get(name)), None)


def server_of(
    model: str,
    max_model_len: int,
    max_num_seqs: int,
    vocab: int,
    arguments: Mapping[str, Any],
) -> tuple[Server, list[str]]:
    """A server for a model, and the names that it serves it under; none where that is open.

    Args:
        model: folder or name of the model.
        max_model_len, max_num_seqs, vocab: as of `Server`; the engine's own arguments win.
        arguments: the engine's own.
    """
    longest = arguments.get("max_model_len") or arguments.get("context_length")
    server = Server(
        max_model_len=longest if type(longest) is int else max_model_len,
        max_num_seqs=max_num_seqs,
        vocab=vocab,
        multimodal=_multimodal(Path(model)),
        arguments=arguments,
    )
    # Engines serve a folder by its path; what a catalogue name is served as, nobody knows yet.
    named = arguments.get("served_model_name") or (model if Path(model).is_dir() else None)
    names = [named] if isinstance(named, str) else named
    return server, [*names, *_adapters(arguments)] if isinstance(names, list) else []


def _adapters(arguments: Mapping[str, Any]) -> list[str]:
    """Names of adapters: ``NAME=PATH``, or objects with a name."""
    given = arguments.get("lora_modules") or arguments.get("lora_paths") or []
    listed = given if isinstance(given, list) else [given]
    names = [
        item.get("name", item.get("lora_name")) if isinstance(item, dict) else item
        for item in listed
    ]
    return [str(name).partition("=")[0] for name in names]


def _multimodal(folder: Path) -> bool | None:
    """Whether a model takes more than text, by its config; None where there is none to ask."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(config, dict):
        return None
    return any(name.endswith("_config") and name.startswith(_SENSES) for name in config)

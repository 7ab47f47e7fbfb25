"""`tokenizer_fingerprint`: whether two folders make the same tokens of the same requests."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from blendplan.checks.json_files import parse_json_object, read_text
from blendplan.requests.chat_template import ChatTemplates
from blendplan.requests.load_tokenizer import FILE, OTHER_FILES

_REMEDY = "fetch the model's files again"
# What decides which tokens a text becomes; the rest of tokenizer.json is for decoding, padding and
# cutting, or says which version wrote it.
_PARTS = ("model", "added_tokens", "normalizer", "pre_tokenizer", "post_processor")


@dataclass(frozen=True)
class TokenizerFingerprint:
    """What a plan records of the tokenizer that made its prompts.

    Attributes:
        vocabulary_sha256: of all that makes tokens of a text: vocabulary, merges, added tokens and
            the steps around them. Where it differs, token ids mean something else.
        chat_template_sha256: of the chat templates and the special tokens they print; empty where
            there are none. Where it differs, only prompts made of messages may differ.
        vocabulary_size: number of tokens, added ones included; 0 where only a tokenizer's own
            format holds them.
    """

    vocabulary_sha256: str
    chat_template_sha256: str
    vocabulary_size: int

    def as_metadata(self) -> dict[str, Any]:
        """As a plan's metadata have it, under ``tokenizer``."""
        return asdict(self)


def tokenizer_fingerprint(directory: Path) -> TokenizerFingerprint | None:
    """The fingerprint of a model directory, None where it holds no tokenizer.

    To see whether a plan was made for an engine's model, compare this of the engine's folder with
    ``tokenizer`` in the plan's metadata. Folders that only differ in how their files are written
    (an older way to write merges, or another order of keys) have the same.

    Raises:
        BlendplanError: a file is damaged.
    """
    path = directory / FILE
    templates = ChatTemplates(directory)
    written = _digest([templates.source, templates.variables]) if templates else ""
    if path.is_file():
        parts = parse_json_object(read_text(path, str(path), _REMEDY), str(path))
        parts = {name: _plain(parts.get(name), name) for name in _PARTS}
        return TokenizerFingerprint(_digest(parts), written, _size(parts))
    digest = hashlib.sha256()
    found = [directory / name for name in (*OTHER_FILES, "merges.txt")]
    for file in found:
        if file.is_file():
            digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    if not any(file.is_file() for file in found):
        return None
    return TokenizerFingerprint(digest.hexdigest(), written, 0)


def _plain(part: Any, name: str) -> Any:
    """A part as newer releases write it: merges as pairs, added tokens by id."""
    if name == "model" and isinstance(part, dict) and isinstance(part.get("merges"), list):
        merges = (
            merge.split(" ", 1) if isinstance(merge, str) else merge for merge in part["merges"]
        )
        return {**part, "merges": list(merges)}
    if name == "added_tokens" and isinstance(part, list):
        return sorted(part, key=lambda token: json.dumps(token, sort_keys=True))
    return part


def _size(parts: dict[str, Any]) -> int:
    model, added = parts["model"], parts["added_tokens"]
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    tokens: set[str] = set()
    if isinstance(vocabulary, dict):
        tokens.update(vocabulary)
    elif isinstance(vocabulary, list):  # with scores
        tokens.update(str(entry[0]) for entry in vocabulary if isinstance(entry, list) and entry)
    for token in added if isinstance(added, list) else []:
        if isinstance(token, dict) and isinstance(token.get("content"), str):
            tokens.add(token["content"])
    return len(tokens)


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()

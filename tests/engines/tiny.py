"""A tokenizer for the tiny model: one token per word, with a chat template."""

import json
import shutil
from pathlib import Path

_WORDS = [
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("<user>", "<assistant>"),
]
_TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}> {{ message['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def tiny_tokenizer(model: Path, folder: Path) -> Path:
    """A copy of a model folder that has a tokenizer too."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    shutil.copytree(model, folder)
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2}
    vocabulary |= {word: 3 + place for place, word in enumerate(_WORDS)}
    vocabulary |= {f"w{token}": token for token in range(len(vocabulary), 4096)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<unk>",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "chat_template": _TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder

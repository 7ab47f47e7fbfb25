"""The sizes without which there is no model, where a file leaves them to the model's class."""

import re
from collections.abc import Iterable

from blendplan.errors import BlendplanError
from blendplan.hardware.hf_config.feed_forward import WIDTH
from blendplan.hardware.hf_config.fields import Config
from blendplan.hardware.hf_config.names import HEADS, HIDDEN, LAYERS, VOCAB
from blendplan.hardware.hf_config.unknown_keys import unread

_MLP = "intermediate_size"
_MAIN = {
    "hidden_size": HIDDEN,
    "num_attention_heads": HEADS,
    "vocab_size": VOCAB,
    "num_hidden_layers": LAYERS,
    _MLP: WIDTH,
}
# What a field may be called that holds the size under a name of its own.
_ALIKE = {
    "hidden_size": re.compile(
        r"^(?!.*(layer|head|voc|ff|mlp|inter|expert|moe|kv))"
        r".*(emb|hidden|width|model_(size|dim)|dim_model|^dim$)"
    ),
    "num_attention_heads": re.compile(r"^(?!.*(kv|dim|size|group)).*head"),
    "vocab_size": re.compile(r"voc|words|n_tokens|num_tokens|num_emb"),
    "num_hidden_layers": re.compile(r"layer|depth|blocks"),
    _MLP: re.compile(
        r"^(?!.*(layer|head|voc|expert|moe|kv|mamba|ssm|state|block))"
        r".*((ff|mlp|inter|inner|feed).*(size|dim|width|hidden)|d_ff|(dim|hidden)_ff|hidden_dim)"
    ),
}


def _left_out(config: Config) -> list[str]:
    """Main sizes that the file does not state; the width of an MLP where there is one."""
    return [
        name
        for name, names in _MAIN.items()
        if not config.says(names) and (name != _MLP or name in config.read)
    ]


def remark_on_defaults(config: Config, kind: str) -> None:
    """Say which main sizes are those of the model's class, once all has been read."""
    found = [name for name in _left_out(config) if config.value(_MAIN[name]) is not None]
    if found and not (kind == "nemotron_h" and found == ["num_hidden_layers"]):
        sizes = ", ".join(f"{name} {config.value(_MAIN[name])}" for name in found)
        config.remark(f"not in the file, by the class of {kind}: {sizes}")


def refuse_unread_sizes(config: Config, harmless: Iterable[str]) -> None:
    """No size is assumed where the file seems to have it under another name.

    Args:
        config: of the model, once all has been read.
        harmless: fields that are known and say nothing more.

    Classes have the sizes of toys as often as those of published models.

    Raises:
        BlendplanError: a number that nobody read looks like a size that the file leaves out.
    """
    for name in _left_out(config):
        if name != _MLP and config.value(_MAIN[name]) is None:
            continue
        for key in unread(config, harmless):
            value = config.values[key]
            number = isinstance(value, int) and not isinstance(value, bool) and value > 1
            if number and _ALIKE[name].search(key.lower()):
                raise BlendplanError(
                    f"{config.where}: {name} is missing, and {key} is {value}, which is not "
                    f"understood; if it is the same size, call it {name}"
                )

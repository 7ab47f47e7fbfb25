"""``blendplan models``: the model catalogue, and what is understood of one model."""

from typing import Any

import click

from blendplan.cli.answer import Answer, answering
from blendplan.cli.catalogue_options import Row, chosen, give_rows, listing
from blendplan.cli.names import CatalogueName

_NUMBERS = {
    "parameters": "parameters",
    "active": "active_parameters",
    "weights": "weights_bytes",
    "context": "context_tokens",
}


@click.command("models")
@click.argument("model", required=False, type=CatalogueName("model", "models"))
@listing(
    ("name", *_NUMBERS, "kv"),
    "name, other names, source, layers or 'moe' and 'experts' (for a mixture of experts)",
)
@answering
def command(model: str | None, grep: str | None, sort: str | None, answer: Answer) -> None:
    """List models by name, or show what is understood of one.

    MODEL is a name, a folder with a Hugging Face config.json, or such a file: what is read from
    it, what was assumed and what is not modelled. KV bytes are those that one request holds on one
    GPU, at so many tokens.

    The list has the models that --model knows by name. One that is missing is given as --model
    DIR; with a tokenizer in the folder, prompts are counted in its tokens.
    """
    from blendplan.hardware.catalogue import aliases
    from blendplan.hardware.lookup import model_names, model_spec
    from blendplan.report.models import model_picture, model_table, model_values

    if model is not None:
        spec = model_spec(model)
        values = model_values(spec)
        answer.give(values, lambda shown: model_picture(spec, shown))
        return
    others = aliases("models")
    rows = (model_values(model_spec(name)) | {"aliases": others[name]} for name in model_names())
    models = chosen(rows, grep, sort, _text, _number)
    give_rows(answer, "models", models, grep, model_table)


def _text(model: Row) -> str:
    """What the list prints of a model, its other names, and whether it has experts."""
    from blendplan.report.models import layer_words

    words = ("moe", "experts") if model["experts"] else ()
    kinds = (layer_words(model["layers"]), *model["layers"])
    return " ".join((model["name"], model["source"], *kinds, *model["aliases"], *words))


def _number(model: Row, key: str) -> Any:
    return model["kv_bytes"]["10000"] if key == "kv" else model[_NUMBERS[key]]

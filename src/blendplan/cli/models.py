"""``blendplan models``: the model catalogue."""

from typing import TYPE_CHECKING, Any

import click

from blendplan.cli.answer import Answer, answering

if TYPE_CHECKING:
    from blendplan.hardware.model import ModelSpec


@click.command("models")
@answering
def command(answer: Answer) -> None:
    """List the models that --model knows by name.

    A model that is missing here is given as --model DIR, a folder with its Hugging Face
    config.json; with a tokenizer in the folder, prompts are counted in its tokens.
    """
    from blendplan.hardware.lookup import model_names, model_spec
    from blendplan.report.catalogue import model_table

    models = [_model(model_spec(name)) for name in model_names()]
    answer.give({"models": models}, lambda shown: model_table(shown["models"]))


def _model(spec: "ModelSpec") -> dict[str, Any]:
    from blendplan.hardware.model_json import model_as_json

    attention = next(iter(spec.attentions))
    if attention.latent:
        kind = "latent"
    elif attention.kv_heads == attention.heads:
        kind = "multi-head"
    else:
        kind = f"grouped, {attention.heads}:{attention.kv_heads}"
    return model_as_json(spec) | {
        "parameters": spec.parameters,
        "active_parameters": spec.active_parameters,
        "weight_bytes": spec.weight_bytes(),
        "kv_bytes_per_token": spec.kv_bytes_per_token(),
        "layers": spec.layer_count,
        "attention": kind,
    }

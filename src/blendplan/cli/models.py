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
    from dataclasses import asdict

    if spec.latent_attention:
        attention = "latent"
    elif spec.kv_heads == spec.heads:
        attention = "multi-head"
    else:
        attention = f"grouped, {spec.heads}:{spec.kv_heads}"
    return asdict(spec) | {
        "parameters": spec.parameters,
        "active_parameters": spec.active_parameters,
        "weight_bytes": spec.weight_bytes(),
        "kv_bytes_per_token": spec.kv_bytes_per_token(),
        "attention": attention,
    }

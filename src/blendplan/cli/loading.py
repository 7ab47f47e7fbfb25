"""Which model an engine loads, where that is another than the one that is planned for."""

from pathlib import Path

import click

load_option = click.option(
    "--load",
    metavar="NAME",
    help="Model that the engine loads, by its Hugging Face name or folder.  [default: --model]",
)


def loaded_folder(model: str) -> str | None:
    """The folder of the model that is planned for; None for a published model.

    A plan knows a model by its name alone.
    """
    path = Path(model)
    if path.name == "config.json":
        path = path.parent
    return str(path) if path.is_dir() else None

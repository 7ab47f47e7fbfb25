"""Which model an engine loads, where that is another than the one that is planned for."""

import click

load_option = click.option(
    "--load",
    metavar="NAME",
    help="Model that the engine loads, by its Hugging Face name or folder.  [default: --model]",
)

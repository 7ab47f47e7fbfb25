"""How `make docs` builds the site: the pages of this folder, the library's and the commands'."""

import click
from sphinx.application import Sphinx

import blendplan

project = "blendplan"
author = "the authors of blendplan"
release = version = blendplan.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
]
root_doc = "index"
exclude_patterns = ["pictures"]

# Headings are linked to as GitHub does it.
myst_heading_anchors = 4
# Links out of this folder lead to the files of the repository.
suppress_warnings = ["myst.xref_missing", "myst.header"]

default_role = "code"
autodoc_typehints = "none"  # signatures have them
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"blendplan {version}"
html_show_sphinx = False


def setup(app: Sphinx) -> None:
    """Take help texts for what they are: plain text, in which a star is a star."""
    for part in ("description", "options", "arguments"):
        app.connect(f"sphinx-click-process-{part}", _plain)


def _plain(app: Sphinx, ctx: click.Context, lines: list[str]) -> None:
    lines[:] = [line.replace("*", r"\*") for line in lines]

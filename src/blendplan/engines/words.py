"""Errors of users who start an engine, in the same words for all of them."""

from blendplan.errors import BlendplanError


def not_installed(engine: str, package: str) -> BlendplanError:
    """The error for an engine whose Python package is missing."""
    return BlendplanError(
        f"{engine} is not installed in this environment; python -m pip install "
        f"'blendplan[{package}]' adds it"
    )


def not_importable(engine: str, package: str, error: ImportError) -> BlendplanError:
    """The error for an engine whose Python package is missing or broken."""
    if error.name == package:
        return not_installed(engine, package)
    return BlendplanError(
        f"{engine} is installed but cannot be imported ({error}); python -c 'import {package}' "
        f"tells more"
    )

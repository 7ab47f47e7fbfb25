"""The package as others meet it: names, versions, what an import costs, what ships."""

import ast
import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import blendplan

PACKAGE = Path(blendplan.__file__).parent
PROJECT = PACKAGE.parent.parent


def test_import_costs_nothing_and_names_come_when_used() -> None:
    script = (
        "import sys, blendplan\n"
        "heavy = {'numpy', 'numba', 'pyarrow', 'scipy', 'networkx', 'rich', 'click'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "blendplan.plan\n"
        "print('numba' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["[]", "True"]


@pytest.mark.parametrize("name", blendplan.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(blendplan, name) is not None
    assert name in dir(blendplan)


def test_functions_stay_functions_whatever_was_imported_first() -> None:
    names = [name for name in blendplan.__all__ if name[0].islower()]
    script = (
        "import importlib, pkgutil, blendplan\n"
        "for module in pkgutil.iter_modules(blendplan.__path__):\n"
        "    if module.name != '__main__':\n"
        "        importlib.import_module(f'blendplan.{module.name}')\n"
        f"print([name for name in {names} if not callable(getattr(blendplan, name))])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'plann'"):
        blendplan.plann  # noqa: B018


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: statement.module
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
        if alias.name == alias.asname
    }
    assert seen == blendplan._HOMES


@pytest.mark.skipif(not (PROJECT / "pyproject.toml").exists(), reason="not run from a clone")
def test_project_file_agrees_with_the_package() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert project["version"] == blendplan.__version__
    module, _, function = project["scripts"]["blendplan"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))
    assert (PROJECT / project["readme"]).exists()
    assert "Apache License" in (PROJECT / "LICENSE").read_text()


def test_what_is_not_python_ships_with_the_package() -> None:
    assert (PACKAGE / "py.typed").exists()
    for name in ("gpus", "models"):
        assert (PACKAGE / "hardware" / "catalogue" / f"{name}.toml").exists()

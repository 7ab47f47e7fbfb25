"""The package as others meet it: names, versions, what an import costs, which way imports point."""

import ast
import importlib
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import blendplan

PACKAGE = Path(blendplan.__file__).parent
PROJECT = PACKAGE.parent.parent

# A module may import modules of its own rank and below. What is not named here is a module beside
# the packages, part of the main path: it may use every stage and nothing that is built on it.
RANKS = [
    {"errors", "kernel", "atomic"},
    {"requests"},
    {"tree"},
    {"lengths"},
    {"cost"},
    {"schedule"},
    {"simulator"},
    {"planner"},
    {"engines", "report", "synthetic"},
    {"cli", "__main__"},
]


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
        assert (PACKAGE / "cost" / "catalogue" / f"{name}.toml").exists()


def _imports(path: Path) -> Iterator[str]:
    """First parts of the names below blendplan that a module imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
            if node.module == "blendplan":
                names = [f"blendplan.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            package, _, rest = name.partition(".")
            if package == "blendplan" and rest:
                yield rest.split(".")[0]


def test_imports_point_one_way() -> None:
    rank = {part: index for index, parts in enumerate(RANKS) for part in parts}
    main_path = rank["planner"]
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert packages <= set(rank), "give each package a rank"
    for path in sorted(PACKAGE.rglob("*.py")):
        part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if part == "__init__":
            continue  # the public names, imported when used
        for imported in _imports(path):
            if imported != "__version__":
                allowed = rank.get(part, main_path)
                assert rank.get(imported, main_path) <= allowed, f"{path} imports {imported}"

"""The house: imports between files point one way, and the rooms stand in the order of the data."""

import ast
from collections.abc import Iterator
from pathlib import Path

import networkx as nx

import blendplan

PACKAGE = Path(blendplan.__file__).parent

# A room may import from itself and from rooms above it; rooms of one row do not know each other.
ORDER = (
    ("printable",),
    ("errors",),
    ("kernels", "whole_file", "names", "offsets"),
    ("checks", "cluster"),
    ("hardware",),
    ("requests",),
    ("tree",),
    ("lengths",),
    ("cost",),
    ("policy",),
    ("simulator",),
    ("planfile",),
    ("planning", "engines"),
    ("replaying",),
    ("proving",),
    ("report", "ray"),
    ("cli",),
    ("__main__",),
)
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}


def module_name(path: Path) -> str:
    """Dotted name of a file of the package."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported_by(module: str) -> Iterator[str]:
    """Files of the package that a file imports anywhere in its text, for type checkers too."""
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in FILES else str(node.module)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def imports() -> "nx.DiGraph[str]":
    """Which file imports which; the public names of `blendplan` itself are left out."""
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(FILES)
    for module in FILES:
        if module != "blendplan":
            graph.add_edges_from(
                (module, name)
                for name in imported_by(module)
                if name in FILES and name != "blendplan"
            )
    return graph


def room(module: str) -> str:
    return module.split(".")[1]


def test_no_circle_between_files() -> None:
    circles = [
        sorted(part) for part in nx.strongly_connected_components(imports()) if len(part) > 1
    ]
    assert circles == []


def test_every_room_has_its_place() -> None:
    assert {room(module) for module in FILES if module != "blendplan"} == set(RANK)


def test_imports_point_one_way() -> None:
    against = [
        f"{module} imports {name}"
        for module, name in imports().edges
        if room(module) != room(name) and RANK[room(module)] <= RANK[room(name)]
    ]
    assert against == []

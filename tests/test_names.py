"""Registries, and the names that are offered for a wrong one."""

import pytest

from blendplan.errors import BlendplanError
from blendplan.names import Registry, did_you_mean, near, unknown

ROWS = {"path": "pathlib:Path", "none": "pathlib:Nothing", "gone": "no_such_module:Thing"}


@pytest.fixture
def registry() -> Registry[object]:
    return Registry("thing", "blendplan.no_such_group", ROWS)


def test_names_that_differ_by_a_few_letters_are_near_whatever_their_case() -> None:
    known = ["a100-80g", "a100-40g", "H200"]
    assert near("a100-80", known)[0] == "a100-80g"
    assert near("h20", known) == ["H200"]
    assert near("xyzzy", known) == []
    assert did_you_mean("h20", known) == "did you mean 'H200'?"
    assert did_you_mean("a100-80", known, 1) == "did you mean 'a100-80g'?"
    assert did_you_mean("xyzzy", known) == ""


def test_where_none_is_near_all_are_listed() -> None:
    assert unknown("GPU", "xyzzy", ["l4", "h200"]) == "unknown GPU 'xyzzy'; choose from l4, h200"


def test_rows_are_imported_when_they_are_asked_for(registry: Registry[object]) -> None:
    from pathlib import Path

    assert registry.names() == list(registry) == list(ROWS)
    assert "path" in registry
    assert registry.get("path") is Path


def test_unknown_names_are_refused(registry: Registry[object]) -> None:
    with pytest.raises(BlendplanError, match="unknown thing 'pth'; did you mean 'path'"):
        registry.get("pth")
    with pytest.raises(BlendplanError, match="choose from path, none, gone"):
        registry.check("xyzzy")

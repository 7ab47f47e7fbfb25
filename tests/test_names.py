"""Registries, and the names that are offered for a wrong one."""

import pytest

from blendplan.errors import BlendplanError
from blendplan.names import Registry, did_you_mean, near, unknown, unknown_entry

ROWS = {"path": "pathlib:Path", "none": "pathlib:Nothing", "gone": "no_such_module:Thing"}


@pytest.fixture
def registry() -> Registry[object]:
    return Registry("thing", "blendplan.no_such_group", ROWS)


def test_names_that_differ_by_a_few_letters_are_near_whatever_their_case() -> None:
    known = ["a100-80g", "a100-40g", "H200"]
    assert near("a100-80", known)[0] == "a100-80g"
    assert near("h20", known) == ["H200"]
    assert near("xyzzy", known) == []
    assert near("fp32", ["auto", "bf16", "fp16"]) == ["fp16"]
    assert near("oracle", ["known", "prior", "sample"]) == []
    assert did_you_mean("h20", known) == "did you mean 'H200'?"
    assert did_you_mean("a100-80", known, 1) == "did you mean 'a100-80g'?"
    assert did_you_mean("xyzzy", known) == ""


def test_names_that_begin_alike_come_first() -> None:
    known = ["l40", "a10", "h20", "h200", "gh200", "h100-80g"]
    assert near("h101", known)[0] == "h100-80g"
    assert near("a11", known)[0] == "a10"
    assert near("gpt-oss-21b", ["gpt-oss-120b", "gpt-oss-20b"])[0] == "gpt-oss-20b"
    assert near("", known) == []
    assert near("", ["", "a10"]) == [""]
    assert near("h101", []) == []


def test_an_entry_of_a_catalogue_may_have_been_meant_as_a_path() -> None:
    assert unknown_entry("GPU", "h20", ["h200"]) == unknown("GPU", "h20", ["h200"])
    line = unknown_entry("model", "cfg/none", ["l4", "h200"])
    assert (
        line == "there is no file or folder 'cfg/none', and no model of that name; check the path"
    )
    assert unknown_entry("model", "org/h20", ["h200"]).endswith("; did you mean 'h200'?")
    assert unknown_entry("model", " ", ["h200"]) == "the model is empty; give a name or a path"


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

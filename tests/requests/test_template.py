"""Templates: what `str.format` makes of plain names, and nothing else that it can."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blendplan.errors import BlendplanError
from blendplan.requests.bad import BadRecordError
from blendplan.requests.template import Template

NAMES = ("text", "lang", "n")
PIECES = st.lists(st.sampled_from(["{text}", "{lang}", "{n}", "{{", "}}", " to ", "é", "\n"]))


@settings(max_examples=50)
@given(PIECES, st.text(), st.text(), st.integers() | st.floats() | st.booleans())
def test_plain_names_are_filled_as_str_format_does(
    pieces: list[str], text: str, lang: str, n: float
) -> None:
    written = "".join([*pieces, "{text}"])
    row = {"text": text, "lang": lang, "n": n}
    template = Template.of(written)
    assert template.filled(row) == written.format(**row)
    assert set(template.columns) == {name for name in NAMES if f"{{{name}}}" in pieces} | {"text"}


def test_a_name_is_a_column_and_nothing_else() -> None:
    row = {"a.b": "dot", "x[0]": "index", "my column": "space", "text": "plain", "0": "number"}
    assert Template.of("{a.b}{x[0]}{my column}{0}").filled(row) == "dotindexspacenumber"
    for code in ("{text.__class__}", "{text[0]}", "{row}"):
        with pytest.raises(BadRecordError, match="no value in"):
            Template.of(code).filled(row)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("to {}", "field without a name"),
        ("{text!r}", "has a format or a conversion"),
        ("{text:>{n}}", "has a format or a conversion"),
        ("{text", "cannot be read"),
        ("text}", "cannot be read"),
        ("no column", "names no column"),
        ("{{text}}", "names no column"),
    ],
)
def test_what_is_no_template(template: str, said: str) -> None:
    with pytest.raises(BlendplanError, match=said) as caught:
        Template.of(template)
    assert "\n" not in str(caught.value)


def test_values_that_are_no_texts() -> None:
    template = Template.of("{v}")
    assert template.filled({"v": [1, "é"]}) == '[1, "é"]'
    assert template.filled({"v": {"a": None}}) == '{"a": null}'
    for value in (None, b"bytes"):
        with pytest.raises(BadRecordError, match='"v"'):
            template.filled({"v": value})

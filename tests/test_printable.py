"""Text from outside in messages and on terminals."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blendplan import BlendplanError
from blendplan.printable import printable, printable_values, show

HOSTILE = ("\x1b[31mred", "two\nlines", "bell\x07", "c1 \x9b2J", "turned \u202e around", "\udc80")


@pytest.mark.parametrize("text", HOSTILE)
def test_what_cannot_be_seen_is_an_escape(text: str) -> None:
    for safe in (printable(text), show(text), str(BlendplanError(f"bad name {text}"))):
        assert safe.isprintable()
    assert "\\" in printable(text)


def test_what_can_be_seen_stays() -> None:
    for text in ("", "plain", "Modèle 大型 \u3000 wide", "back\\slash"):
        assert printable(text) == text


@given(st.text())
def test_printable_of_printable_is_the_same(text: str) -> None:
    assert printable(printable(text)) == printable(text)
    assert not set(printable(text)) & set("\x1b\n\r\x07\x9b\u202e")


def test_values_within_values() -> None:
    values = {"na\x1bme": [{"family": "a\nb"}, 1, None, 2.5, True]}
    assert printable_values(values) == {"na\\x1bme": [{"family": "a\\nb"}, 1, None, 2.5, True]}


def test_errors_travel_between_processes() -> None:
    error = pickle.loads(pickle.dumps(BlendplanError("one\nline")))
    assert str(error) == "one line"


def test_a_number_of_any_size_is_shown_shortly() -> None:
    assert len(show(10**30)) < 50
    assert show(10**5000) == "a number of thousands of digits"

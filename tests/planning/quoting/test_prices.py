"""Prices of GPUs: by any name of the GPU, and what is refused."""

from pathlib import Path

import pytest

from blendplan.errors import BlendplanError
from blendplan.planning.quoting.prices import Prices, checked_prices, read_prices


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "prices.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_prices_are_found_by_any_name(tmp_path: Path) -> None:
    path = written(tmp_path, 'currency = "EUR"\nA100-80GB = 1.79\nl4 = 1\n')
    prices = read_prices(path)
    assert prices == Prices({"a100-80g": 1.79, "l4": 1.0}, "EUR")
    assert prices.of("h200") is None
    assert prices.replaced({"l4": 2.0}).of("l4") == 2.0
    assert not Prices()


def test_a_profile_has_a_price_by_its_own_name() -> None:
    assert checked_prices({"mine": 3}, ["mine"]) == {"mine": 3.0}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("h100-80 = 2", "price for an unknown GPU 'h100-80'; did you mean 'h100-80g'"),
        ("h100-80g = ", "is not TOML"),
        ("h100-80g = 0", "give a number above 0"),
        ("h100-80g = -1.5", "give a number above 0"),
        ("h100-80g = nan", "give a number above 0"),
        ("h100-80g = true", "price of h100-80g is true"),
        ('h100-80g = "2.5"', 'price of h100-80g is "2.5"'),
        ("h100-80g = 2\nH100 = 3", "two prices for h100-80g"),
        ("currency = 7", "give a text such as"),
        ("[h100-80g]\nhour = 2", "price of h100-80g is an object"),
        ("a = " + "[" * 100_000, "nested too deeply"),
    ],
)
def test_bad_prices_are_named_with_their_file(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(BlendplanError) as caught:
        read_prices(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BlendplanError, match="No such file"):
        read_prices(tmp_path / "none.toml")

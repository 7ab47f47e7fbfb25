"""Options of ``blendplan quote``: several values where `plan` takes one, and prices."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from blendplan.errors import BlendplanError
from blendplan.planning.quoting.listed import LISTED

if TYPE_CHECKING:
    from blendplan.planning.quoting.prices import Prices

    ParamType = click.ParamType[Any]
else:  # generic in recent click only
    ParamType = click.ParamType


class Several(ParamType):
    """Values of another type separated by commas, each once, in the order given."""

    def __init__(self, of: "ParamType") -> None:
        self.name = of.name
        self.of = of

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Any, ...]:
        if isinstance(value, tuple):
            return value
        words = [word.strip() for word in str(value).split(",")]
        if "" in words:
            self.fail(f"{value!r} has nothing beside a comma; leave the comma out", param, ctx)
        return tuple(dict.fromkeys(self.of.convert(word, param, ctx) for word in words))

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> Any:
        chosen, comma, word = incomplete.rpartition(",")
        for item in self.of.shell_complete(ctx, param, word):
            item.value = f"{chosen}{comma}{item.value}"
            yield item


def several_values(function: Callable[..., None]) -> Callable[..., None]:
    """Let options of a command that plans take several values, where a quote does."""
    options: list[click.Parameter] = getattr(function, "__click_params__", [])
    for option in options:
        if option.name in LISTED and isinstance(option, click.Option):
            option.metavar = f"{option.metavar or option.type.name.upper()},..."
            option.type = Several(option.type)
    return function


def _price(ctx: click.Context, param: click.Parameter, words: tuple[str, ...]) -> dict[str, float]:
    """``GPU=PRICE`` words as a dictionary."""
    prices: dict[str, float] = {}
    for word in words:
        gpu, equals, value = word.rpartition("=")
        try:
            price = float(value)
        except ValueError:
            price = float("nan")
        if not gpu or not equals or price != price:
            raise click.BadParameter(
                f"{word!r} is not GPU=PRICE, such as h100-80g=2.49", ctx, param
            )
        if gpu in prices:
            raise click.BadParameter(f"there are two prices for {gpu}; keep one", ctx, param)
        prices[gpu] = price
    return prices


def price_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add ``--prices`` and ``--price``."""
    function = click.option(
        "--price",
        "given_prices",
        multiple=True,
        callback=_price,
        metavar="GPU=PRICE",
        help="Price of one GPU for an hour; goes before that of --prices. May be given several "
        "times.",
    )(function)
    return click.option(
        "--prices",
        "prices_file",
        type=click.Path(),
        metavar="FILE",
        help="Prices, as a TOML file with a line such as h100-80g = 2.49 for each GPU (per GPU and "
        'hour), and currency = "EUR" where that is to be shown.',
    )(function)


def prices_of(gpus: Iterable[str], file: str | None, given: Mapping[str, float]) -> "Prices":
    """Prices of the file and of the command line; the latter must be of GPUs that are asked for.

    Args:
        gpus: those that ``--gpu`` names.
        file: of ``--prices``.
        given: of ``--price``.

    Raises:
        BlendplanError: as `read_prices` and `checked_prices`, or a price for another GPU.
    """
    from blendplan.hardware.lookup import gpu_spec
    from blendplan.planning.quoting.prices import Prices, checked_prices, read_prices

    asked = [gpu_spec(one).name for one in gpus]
    prices = Prices() if file is None else read_prices(Path(file), asked)
    stated = checked_prices(given, asked)
    for gpu in stated:
        if gpu not in asked:
            raise BlendplanError(
                f"there is a price for {gpu}, which --gpu does not name; it names "
                f"{', '.join(asked)}"
            )
    return prices.replaced(stated)

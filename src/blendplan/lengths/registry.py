"""`LENGTH_PREDICTORS`: the ways of predicting output lengths, by name."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from blendplan.errors import BlendplanError
from blendplan.names import Registry, did_you_mean

if TYPE_CHECKING:
    from blendplan.lengths.protocol import LengthPredictor

LENGTH_PREDICTORS: "Registry[Callable[[], LengthPredictor]]" = Registry(
    "length method",
    "blendplan.length_predictors",
    {
        "known": "blendplan.lengths.known:KnownPredictor",
        "prior": "blendplan.lengths.prior:PriorPredictor",
        "sample": "blendplan.lengths.from_sample:by_prompts",
        "history": "blendplan.lengths.history:HistoryPredictor",
        "nearest": "blendplan.lengths.from_sample:by_nearest_subtree",
    },
)

AUTO = "auto"
"""Stated lengths, and ``prior`` for requests that state none."""


def length_methods() -> list[str]:
    """What may be given as a method, without the files that some need; nothing is imported."""
    return [AUTO, *LENGTH_PREDICTORS.names()]


def predictor_of(method: str) -> "tuple[str, LengthPredictor, str]":
    """Name, fresh predictor and results file of a method, ``name`` or ``name:FILE``.

    Raises:
        BlendplanError: no such predictor, a file that is missing, or one that is not
            expected.
    """
    name, _, file = method.partition(":")
    name_of_row = "prior" if name == AUTO else name
    if name_of_row not in LENGTH_PREDICTORS:
        hint = did_you_mean(name, length_methods(), 1)
        wrong = f"unknown length method {method!r}; " + (f"{hint} " if hint else "")
    else:
        predictor = LENGTH_PREDICTORS.get(name_of_row)()
        if bool(file) == predictor.takes_file:
            return name_of_row, predictor, file
        if predictor.takes_file:
            wrong = f"length method {method!r} needs a results file; "
        else:
            wrong = f"unknown length method {method!r}: {name!r} takes no file; "
    raise BlendplanError(f"{wrong}give {', '.join(_spelled_out())}")


def _spelled_out() -> list[str]:
    """All methods, with the file where one is needed."""
    spelled = [AUTO]
    for name in LENGTH_PREDICTORS.names():
        try:
            takes_file = LENGTH_PREDICTORS.get(name)().takes_file
        except BlendplanError:  # of a third party, and broken: none to offer
            continue
        spelled.append(f"{name}:FILE" if takes_file else name)
    return spelled

"""Numbers as people read them: few digits, the unit beside them."""

import math
from collections.abc import Mapping
from typing import Any

_LARGE = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def count(value: float) -> str:
    """A count in full, digits in groups of three."""
    return f"{value:,.0f}"


def rounded(value: float) -> str:
    """Three significant digits and a letter for the thousands: 12345 is ``12.3k``."""
    if not math.isfinite(value):
        return str(value)
    for size, letter in _LARGE:
        if abs(value) >= 0.9995 * size:
            return f"{_digits(value / size)}{letter}"
    return _digits(value)


def duration(seconds: float) -> str:
    """Seconds in the units that matter: ``5 h 02 min``, ``4 min 10 s``, ``3.21 s``, ``12 ms``."""
    if not math.isfinite(seconds):
        return str(seconds)
    if seconds == 0:
        return "0 s"
    if seconds < 0.9995:
        return f"{_digits(1e3 * seconds)} ms"
    if seconds < 99.5:
        return f"{_digits(seconds)} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def short_duration(seconds: float) -> str:
    """Three digits and one unit, for columns: ``5.04 h``, ``11.0 min``, ``3.21 s``, ``2.5 d``."""
    if not math.isfinite(seconds):
        return str(seconds)
    for unit_s, sign in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 1.995 * unit_s:
            return f"{_digits(seconds / unit_s)} {sign}"
    return duration(seconds)


def money(amount: float, currency: str = "") -> str:
    """An amount to the cent, below 1 to three digits, with its currency."""
    text = f"{amount:,.2f}" if amount >= 1 else _digits(amount)
    return f"{text} {currency}".rstrip()


def probability(value: float) -> str:
    """A probability in whole per cent, never rounded to certainty."""
    if 0.0 < value < 0.01:
        return "< 1 %"
    if 0.99 < value < 1.0:
        return "> 99 %"
    return f"{value:.0%}".replace("%", " %")


def share(value: float) -> str:
    """A share as a percentage."""
    return f"{value:.1%}".replace("%", " %")


def cost(job: Mapping[str, Any]) -> str:
    """What a job cost: ``12.40 EUR at 2.49 a GPU hour``.

    Args:
        job: keys ``cost``, ``currency`` and ``price_per_gpu_hour``.
    """
    return f"{money(job['cost'], job['currency'])} at {job['price_per_gpu_hour']:g} a GPU hour"


def gain(value: float) -> str:
    """What is won or lost as a percentage: ``+5.4 %``."""
    return ("+" if value >= 0 else "") + share(value)


def learned(replan: Mapping[str, Any]) -> str:
    """What a run learns: ``3 times; 6.74M output tokens were expected, 4.1M after the last``.

    Args:
        replan: keys ``expected_output_tokens`` and ``revisions``.
    """
    before, revisions = rounded(replan["expected_output_tokens"]), replan["revisions"]
    if not revisions:
        return f"nothing; {before} output tokens were expected"
    times = "once" if len(revisions) == 1 else f"{count(len(revisions))} times"
    after = rounded(revisions[-1]["output_tokens"])
    return f"{times}; {before} output tokens were expected, {after} after the last"


def estimated(total: Mapping[str, Any]) -> str:
    """A total that a sample estimates: ``6.74M, 90 % interval 6.12M to 7.41M, from 200 results``.

    Args:
        total: keys ``estimate``, ``low``, ``high``, ``level`` and ``results``.
    """
    return (
        f"{rounded(total['estimate'])}, {total['level']:.0%}".replace("%", " %")
        + f" interval {rounded(total['low'])} to {rounded(total['high'])}, "
        f"from {count(total['results'])} {'result' if total['results'] == 1 else 'results'}"
    )


def binary_size(size_bytes: float) -> str:
    """Bytes in GiB."""
    return f"{size_bytes / 2**30:.1f} GiB"


def _digits(value: float) -> str:
    if value == 0:
        return "0"
    after_point = max(0, 2 - math.floor(math.log10(abs(value) * 1.0005)))
    return f"{value:.{after_point}f}"

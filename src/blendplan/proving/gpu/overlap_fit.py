"""The overlap exponent q with its spread, and the frontier, from measured pairs."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

BOOTSTRAPS = 500
# q from 0.7, where running together costs more than one after another, to nearly perfect overlap.
EXPONENTS = np.exp(np.linspace(np.log(0.7), np.log(50.0), 800))


def fit_overlap(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Exponents and frontier of the rows that `overlap.measure` writes to ``overlap.json``.

    Returns:
        ``exponent``: by way of sharing (``streams``, ``partition`` for every split on its own,
        ``best`` for the fastest way of each pair and ratio), q with the 5 and 95 % points of a
        bootstrap over pairs, the cases, and the error of T in percent. ``frontier``: by attention
        SMs, the share of full speed that GEMM and attention keep when both run to the end.
    """
    plain = [row for row in rows if not row["matched"]]
    exponent = {"streams": _exponent([row for row in plain if row["way"] == "streams"])}
    for sms in sorted({row["attention_sms"] for row in plain if row["way"] == "partition"}):
        chosen = [row for row in plain if row["attention_sms"] == sms]
        exponent[f"partition_{sms}"] = _exponent(chosen)
    best: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for row in plain:
        key = (*_pair(row), round(row["attention_s"] / row["gemm_s"], 3))
        if key not in best or row["together_s"] < best[key]["together_s"]:
            best[key] = row
    exponent["best"] = _exponent(list(best.values()))
    return {
        "exponent": {way: fit for way, fit in exponent.items() if fit},
        "frontier": _frontier([row for row in rows if row["matched"]]),
    }


def _pair(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["gemm_tokens"], row["batch"], row["context"]


def _exponent(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """q that minimises the squared log error of T, and its spread over pairs."""
    if not rows:
        return {}
    gemm_s = np.array([row["gemm_s"] for row in rows])
    attention_s = np.array([row["attention_s"] for row in rows])
    together_s = np.array([row["together_s"] for row in rows])
    longer, shorter = np.maximum(gemm_s, attention_s), np.minimum(gemm_s, attention_s)
    ratio = (shorter / longer)[None, :]
    q = EXPONENTS[:, None]
    log_error = np.log(longer * (1.0 + ratio**q) ** (1.0 / q) / together_s)
    best = int(np.argmin((log_error**2).sum(1)))
    pairs: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        pairs[_pair(row)].append(index)
    groups = list(pairs.values())
    rng = np.random.default_rng(0)
    spread: NDArray[np.float64] = np.empty(BOOTSTRAPS)
    for draw in range(BOOTSTRAPS):
        chosen = np.concatenate([groups[g] for g in rng.integers(0, len(groups), len(groups))])
        spread[draw] = EXPONENTS[np.argmin((log_error[:, chosen] ** 2).sum(1))]
    return {
        "q": round(float(EXPONENTS[best]), 3),
        "q_p5": round(float(np.quantile(spread, 0.05)), 3),
        "q_p95": round(float(np.quantile(spread, 0.95)), 3),
        "cases": len(rows),
        "mape": round(float(100 * np.abs(np.expm1(log_error[best])).mean()), 2),
    }


def _frontier(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Mean share of full speed that each side keeps, per split of the SMs."""
    points: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        kept = row["gemm_s"] / row["together_s"], row["attention_s"] / row["together_s"]
        points[row["attention_sms"]].append(kept)
    return [
        {
            "attention_sms": sms,
            "gemm_rate": round(float(np.mean([gemm for gemm, _ in kept])), 4),
            "attention_rate": round(float(np.mean([attention for _, attention in kept])), 4),
        }
        for sms, kept in sorted(points.items())
    ]

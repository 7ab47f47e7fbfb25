"""Calibrate from a real run: a log of engine steps gives the prices of a step."""

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from blendplan.cost.reach import (
    ALL_TOKENS,
    Reach,
    reach_as_metadata,
    reach_from_metadata,
    sees_all,
)
from blendplan.errors import BlendplanError
from blendplan.hardware.gpu import GpuSpec
from blendplan.hardware.model import ModelSpec, linear_shapes

COLUMNS = ("prefill_tokens", "decode_tokens", "kv_tokens_read", "sequences", "time_s")
# Optional: (query, key) pairs of prefill attention, without which its cost goes to the tokens.
PAIRS = "prefill_pairs"
# Optional: when the step ended, which tells what the engine's caller did between two steps.
END = "end_s"
# Metadata of the file, by the same word as in a plan: how far back attention looks. A log without
# it counts every token of a context.
REACH = b"reach"
# Tokens at which the price of one more may change, as GEMMs turn from memory to compute bound.
KNOTS = (0.0, 16.0, 64.0, 256.0, 1024.0, 4096.0)
LEAST_PER_KNOT = 5  # steps
LEAST_STEPS = 20
LARGEST = 1e15
REWEIGHTINGS = 30
OUTLIER = 1.345  # Huber's constant: errors within so many standard deviations count in full
MOST_STALLS = 1.0


@dataclass(frozen=True)
class StepLog:
    """Steps of an engine as columns; float64 [steps] each.

    Attributes:
        prefill_tokens, decode_tokens: tokens computed.
        kv_tokens_read: KV-cache tokens that the decoding sequences read, by ``reach``.
        sequences: sequences that took part.
        time_s: how long the step took.
        prefill_pairs: (query, key) pairs of prefill attention, by ``reach``; zeros where not
            recorded.
        reach: how far back attention looks, as far as the log counts by it.
    """

    prefill_tokens: NDArray[np.float64]
    decode_tokens: NDArray[np.float64]
    kv_tokens_read: NDArray[np.float64]
    sequences: NDArray[np.float64]
    time_s: NDArray[np.float64]
    prefill_pairs: NDArray[np.float64]
    reach: Reach = ALL_TOKENS

    def __len__(self) -> int:
        return len(self.time_s)


def read_step_log(path: Path) -> StepLog:
    """A step log from a Parquet file with the columns of `COLUMNS`.

    With ``end_s``, a step's time counts from the end of the step before it: what happens between
    steps is as much a part of a run as the steps themselves.

    Raises:
        BlendplanError: no such file, not Parquet, columns missing or no numbers, too few steps.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise BlendplanError(f"step log {path}: no such file") from None
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0].rpartition("': ")[2]  # arrow repeats the path
        raise BlendplanError(f"step log {path} cannot be read as Parquet: {reason}") from None
    columns: dict[str, NDArray[np.float64]] = {}
    for name in (*COLUMNS, PAIRS, END):
        if name not in table.column_names:
            if name in (PAIRS, END):
                columns[name] = np.zeros(table.num_rows)
                continue
            raise BlendplanError(
                f"step log {path} has no column {name!r}; expected {', '.join(COLUMNS)}"
            )
        try:
            columns[name] = np.asarray(table.column(name).cast(pa.float64()), np.float64)
        except pa.ArrowInvalid:
            kind = table.column(name).type
            raise BlendplanError(f"step log {path}: {name} is {kind}; expected numbers") from None
        wrong = ~((columns[name] >= 0) & (columns[name] <= LARGEST))
        if wrong.any():
            row = int(wrong.argmax())
            raise BlendplanError(
                f"step log {path}: {name} is {columns[name][row]:g} in row {row}; expected numbers "
                f"from 0 to {LARGEST:g}"
            )
    columns["time_s"] = _with_pauses(columns["time_s"], columns.pop(END))
    log = StepLog(**columns, reach=_reach(table, path))
    busy = (log.prefill_tokens + log.decode_tokens > 0) & (log.time_s > 0)
    if busy.sum() < LEAST_STEPS:
        raise BlendplanError(
            f"step log {path} has {int(busy.sum())} steps with tokens and a time; "
            f"at least {LEAST_STEPS} are needed"
        )
    return StepLog(**{name: column[busy] for name, column in columns.items()}, reach=log.reach)


def _with_pauses(time_s: NDArray[np.float64], end_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Times of steps, each with the pause before it.

    A step is over once its own time has passed since the one before, and not before its end was
    logged. Several are logged at once, and some late: what that puts the log ahead of the time that
    has passed is made up for by later steps, so that no moment counts twice. Where ends go back,
    another run begins.
    """
    pauses = np.zeros(len(time_s))
    runs = np.flatnonzero(np.diff(end_s) < 0) + 1
    for begin, end in itertools.pairwise([0, *runs.tolist(), len(time_s)]):
        # After step i the clock shows its sum of times and the largest lead that an end had on it.
        lead_s = end_s[begin:end] - np.cumsum(time_s[begin:end])
        pauses[begin:end] = np.diff(np.maximum.accumulate(lead_s), prepend=lead_s[:1])
    return time_s + pauses


def _reach(table: pa.Table, path: Path) -> Reach:
    text = (table.schema.metadata or {}).get(REACH)
    if text is None:
        return ALL_TOKENS
    try:
        columns = json.loads(text)
    except ValueError:
        columns = None
    return reach_from_metadata(columns, f"step log {path}: reach")


def unknown_machine(name: str) -> GpuSpec:
    """A machine of which only a step log is known; its KV capacity must be stated by the user."""
    return GpuSpec(
        name=name,
        flop_per_s=0.0,
        bandwidth_bytes_per_s=0.0,
        memory_bytes=0,
        link_bytes_per_s=0.0,
        sm_count=0,
        l2_bytes=0,
        source="step log",
    )


def calibrate_steps(log: StepLog, gpu: GpuSpec, model: ModelSpec, tp: int = 1) -> GpuSpec:
    """The GPU with step prices fitted to a log of one model's steps.

    A step's time is its fixed cost, which is another where it has prompt tokens, as engines then
    launch kernels that they replay as one CUDA graph otherwise; plus a price per token that may
    change at `KNOTS`, per sequence, per KV token read and per prefill pair, none negative. Huber's
    weights keep single slow steps (a page fault, another process) from bending the prices; what
    such steps add to the total is stated as ``stall_share`` and counted on top, so that run times
    come out right.

    Args:
        log: from `read_step_log`.
        gpu: datasheet numbers to go with the prices, and operators for other models, if any.
        model, tp: what the engine ran; the prices hold for it alone.
    """
    tokens = log.prefill_tokens + log.decode_tokens
    knots = _knots(tokens)
    terms = np.column_stack(
        [
            np.ones(len(log)),
            segments(tokens, knots),
            log.sequences,
            log.kv_tokens_read,
            log.prefill_pairs,
            log.prefill_tokens > 0,
        ]
    )
    prices = _robust_prices(terms, log.time_s)
    predicted_s = terms @ prices
    stalls = float(np.clip(log.time_s.sum() / predicted_s.sum() - 1.0, -MOST_STALLS, MOST_STALLS))
    first = 1 + len(knots)
    steps: dict[str, Any] = {
        "source": f"{len(log)} steps of {model.name}",
        "model": model.name,
        "linear_parameters": sum(shape.parameters for shape in linear_shapes(model)),
        "tp": tp,
        "knots_tokens": [float(knot) for knot in knots],
        "token_s": [float(price) for price in prices[1:first]],
        "step_s": float(prices[0]),
        "sequence_s": float(prices[first]),
        "kv_token_s": float(prices[first + 1]),
        "pair_s": float(prices[first + 2]),
        "prefill_step_s": float(prices[first + 3]),
        "stall_share": stalls,
        "steps": len(log),
        "median_error_share": float(np.median(np.abs(predicted_s / log.time_s - 1.0))),
    }
    if not sees_all(log.reach):
        steps["reach"] = reach_as_metadata(log.reach)
    fitted = {**gpu.fitted, "steps": steps}
    return GpuSpec(
        **{name: getattr(gpu, name) for name in GpuSpec.__dataclass_fields__ if name != "fitted"},
        fitted=fitted,
    )


def _knots(tokens: NDArray[np.float64]) -> NDArray[np.float64]:
    """The knots between which a few steps lie."""
    kept = [KNOTS[0]]
    for knot in KNOTS[1:]:
        between = (tokens > kept[-1]) & (tokens <= knot)
        beyond = tokens > knot
        # Few steps may be most of the time: those of thousands of tokens.
        if min(between.sum(), beyond.sum()) >= LEAST_PER_KNOT:
            kept.append(knot)
    return np.array(kept)


def segments(tokens: NDArray[np.float64], knots: NDArray[np.float64]) -> NDArray[np.float64]:
    """Tokens of each step that fall between one knot and the next; float64 [steps, knots]."""
    ends = np.append(knots[1:], np.inf)
    return np.clip(tokens[:, None] - knots, 0.0, ends - knots)


def _robust_prices(terms: NDArray[np.float64], time_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Prices, none negative, by iteratively reweighted least squares of the relative error."""
    from scipy.optimize import nnls  # slow to import, and only fits need it

    scale = np.maximum(np.abs(terms).max(axis=0), 1e-300)
    relative = terms / scale / time_s[:, None]
    weight = np.ones(len(time_s))
    prices = np.zeros(terms.shape[1])
    for _ in range(REWEIGHTINGS):
        root = np.sqrt(weight)
        prices = nnls(relative * root[:, None], root)[0]
        error = np.abs(relative @ prices - 1.0)
        spread = max(1.4826 * float(np.median(error)), 1e-6)
        weight = np.minimum(1.0, OUTLIER * spread / np.maximum(error, 1e-12))
    return np.asarray(prices / scale, np.float64)

"""Calibrate from a real run: a log of engine steps gives the prices of a step."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from blendplan.cost.datasheet import check_step_limits
from blendplan.cost.gpu import GpuSpec
from blendplan.cost.model import ModelSpec, linear_shapes
from blendplan.cost.step import StepTable
from blendplan.errors import BlendplanError

COLUMNS = ("prefill_tokens", "decode_tokens", "kv_tokens_read", "sequences", "time_s")
# Optional: (query, key) pairs of prefill attention, without which its cost goes to the tokens.
PAIRS = "prefill_pairs"
# Optional: when the step ended, which tells what the engine's caller did between two steps.
END = "end_s"
# Tokens at which the price of one more may change, as GEMMs turn from memory to compute bound.
KNOTS = (0.0, 16.0, 64.0, 256.0, 1024.0, 4096.0)
LEAST_SHARE_PER_KNOT = 0.05
LEAST_STEPS = 20
LARGEST = 1e15
REWEIGHTINGS = 30
OUTLIER = 1.345  # Huber's constant: errors within so many standard deviations count in full
MOST_STALLS = 1.0
LARGE_STEP = 4096.0  # tokens
# A log of short contexts may show no price of reading them; densities need one.
LEAST_PRICE_S = 1e-15


@dataclass(frozen=True)
class StepLog:
    """Steps of an engine as columns; float64 [steps] each.

    Attributes:
        prefill_tokens, decode_tokens: tokens computed.
        kv_tokens_read: KV-cache tokens that the decoding sequences read.
        sequences: sequences that took part.
        time_s: how long the step took.
        prefill_pairs: (query, key) pairs of prefill attention; zeros where not recorded.
    """

    prefill_tokens: NDArray[np.float64]
    decode_tokens: NDArray[np.float64]
    kv_tokens_read: NDArray[np.float64]
    sequences: NDArray[np.float64]
    time_s: NDArray[np.float64]
    prefill_pairs: NDArray[np.float64]

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
    ends_s = columns.pop(END)
    between_s = np.diff(ends_s, prepend=ends_s[:1])
    columns["time_s"] = np.maximum(columns["time_s"], between_s)
    log = StepLog(**columns)
    busy = (log.prefill_tokens + log.decode_tokens > 0) & (log.time_s > 0)
    if busy.sum() < LEAST_STEPS:
        raise BlendplanError(
            f"step log {path} has {int(busy.sum())} steps with tokens and a time; "
            f"at least {LEAST_STEPS} are needed"
        )
    return StepLog(**{name: column[busy] for name, column in columns.items()})


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

    A step's time is its fixed cost, plus a price per token that may change at `KNOTS`, per
    sequence, per KV token read and per prefill pair, none negative. Huber's weights keep single
    slow steps (a page fault, another process) from bending the prices; what such steps add to the
    total is stated as ``stall_share`` and counted on top, so that run times come out right.

    Args:
        log: from `read_step_log`.
        gpu: datasheet numbers to go with the prices.
        model, tp: what the engine ran; the prices hold for it alone.
    """
    tokens = log.prefill_tokens + log.decode_tokens
    knots = _knots(tokens)
    terms = np.column_stack(
        [
            np.ones(len(log)),
            _segments(tokens, knots),
            log.sequences,
            log.kv_tokens_read,
            log.prefill_pairs,
        ]
    )
    prices = _robust_prices(terms, log.time_s)
    predicted_s = terms @ prices
    stalls = float(np.clip(log.time_s.sum() / predicted_s.sum() - 1.0, -MOST_STALLS, MOST_STALLS))
    first = 1 + len(knots)
    steps = {
        "model": model.name,
        "linear_parameters": sum(shape.parameters for shape in linear_shapes(model)),
        "tp": tp,
        "knots_tokens": [float(knot) for knot in knots],
        "token_s": [float(price) for price in prices[1:first]],
        "step_s": float(prices[0]),
        "sequence_s": float(prices[first]),
        "kv_token_s": float(prices[first + 1]),
        "pair_s": float(prices[first + 2]),
        "stall_share": stalls,
        "steps": len(log),
        "median_error_share": float(np.median(np.abs(predicted_s / log.time_s - 1.0))),
    }
    fitted = {**gpu.fitted, "source": f"{len(log)} steps of {model.name}", "steps": steps}
    return GpuSpec(
        **{name: getattr(gpu, name) for name in GpuSpec.__dataclass_fields__ if name != "fitted"},
        fitted=fitted,
    )


@dataclass(frozen=True)
class StepLogCost:
    """Steps priced as a step log of the same model showed them.

    Attributes:
        model, tp: what the log was recorded with.
        steps: the table ``fitted.steps`` of a profile.
    """

    model: ModelSpec
    tp: int
    steps: Mapping[str, Any]

    @property
    def name(self) -> str:
        """``calibrated``."""
        return "calibrated"

    @property
    def note(self) -> str:
        """Empty: the prices were measured."""
        return ""

    def parameters(self) -> dict[str, Any]:
        """The prices, as JSON values."""
        return {"measured": ["steps"], "source": "step log", **self.steps, "tp": self.tp}

    def demand(
        self, prompt_tokens: ArrayLike, output_tokens: ArrayLike
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Seconds of compute and of KV reads; float64 [n] each. Tokens as in a large step."""
        p = np.asarray(prompt_tokens, np.float64)
        d = np.asarray(output_tokens, np.float64)
        token_s = max(float(self._linear_s(np.array([LARGE_STEP]))[0]) / LARGE_STEP, LEAST_PRICE_S)
        compute_s = (p + d) * token_s + d * self.steps["sequence_s"]
        compute_s = compute_s + p * (p + 1.0) / 2.0 * self.steps["pair_s"]
        memory_s = (p * d + d * d / 2.0) * max(self.steps["kv_token_s"], LEAST_PRICE_S)
        return self._stalled * compute_s, self._stalled * memory_s

    def step_table(
        self, max_num_batched_tokens: int, max_num_seqs: int, overlap: float = 1.0
    ) -> StepTable:
        """The fitted prices; what the log did not tell apart is in the price per token."""
        check_step_limits(max_num_batched_tokens, max_num_seqs, overlap)
        tokens = np.arange(max_num_batched_tokens + 1, dtype=np.float64)
        linear_s = self._linear_s(tokens)
        head_s = np.arange(max_num_seqs + 1, dtype=np.float64) * self.steps["sequence_s"]
        return StepTable(
            linear_s=self._stalled * linear_s,
            head_s=self._stalled * head_s,
            prefill_attention=self._stalled * np.array([self.steps["pair_s"], 0.0, 0.0]),
            decode_attention=self._stalled * np.array([self.steps["kv_token_s"], 0.0, 0.0]),
            overlap=float(overlap),
            step_s=float(self._stalled * self.steps["step_s"]),
        )

    def _linear_s(self, tokens: NDArray[np.float64]) -> NDArray[np.float64]:
        knots = np.array(self.steps["knots_tokens"], np.float64)
        return _segments(tokens, knots) @ np.array(self.steps["token_s"], np.float64)

    @property
    def _stalled(self) -> float:
        return 1.0 + float(self.steps["stall_share"])


def step_log_cost(model: ModelSpec, gpu: GpuSpec, tp: int = 1) -> StepLogCost:
    """The cost of a model by the step log in a profile.

    Raises:
        BlendplanError: the log is of another model or tp, or the table is not what `calibrate`
            writes.
    """
    steps = gpu.fitted["steps"]
    where = f"GPU {gpu.name}: fitted.steps"
    numbers = ("step_s", "sequence_s", "kv_token_s", "pair_s", "stall_share", "linear_parameters")
    if not isinstance(steps, Mapping) or not all(_is_number(steps.get(name)) for name in numbers):
        raise BlendplanError(f"{where}: expected the numbers {', '.join(numbers)}")
    pieces = [steps.get(name) for name in ("knots_tokens", "token_s")]
    if not all(
        isinstance(piece, list) and piece and all(map(_is_number, piece)) for piece in pieces
    ):
        raise BlendplanError(f"{where}: expected lists of numbers knots_tokens and token_s")
    if len(steps["knots_tokens"]) != len(steps["token_s"]):
        raise BlendplanError(f"{where}: knots_tokens and token_s differ in length")
    held = sum(shape.parameters for shape in linear_shapes(model))
    if held != steps["linear_parameters"] or tp != steps.get("tp", 1):
        raise BlendplanError(
            f"the step log in GPU profile {gpu.name} was recorded with {steps.get('model')} on "
            f"{steps.get('tp', 1)} GPUs, not {model.name} on {tp}; record one with this model"
        )
    return StepLogCost(model, tp, steps)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _knots(tokens: NDArray[np.float64]) -> NDArray[np.float64]:
    """The knots between which at least some steps lie."""
    kept = [KNOTS[0]]
    for knot in KNOTS[1:]:
        between = (tokens > kept[-1]) & (tokens <= knot)
        beyond = tokens > knot
        if min(between.mean(), beyond.mean()) >= LEAST_SHARE_PER_KNOT:
            kept.append(knot)
    return np.array(kept)


def _segments(tokens: NDArray[np.float64], knots: NDArray[np.float64]) -> NDArray[np.float64]:
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

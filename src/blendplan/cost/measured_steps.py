"""`StepLogCost`: the price of a step as fitted to a log of engine steps."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from blendplan.cost.calibration.from_steps import segments
from blendplan.cost.reach import ALL_TOKENS, Reach, pairs_up_to, reach_from_metadata, reads
from blendplan.cost.step import StepTable
from blendplan.errors import BlendplanError
from blendplan.hardware.gpu import GpuSpec
from blendplan.hardware.model import ModelSpec, linear_shapes

LARGE_STEP = 4096.0  # tokens
# A log of short contexts may show no price of reading them; densities need one.
LEAST_PRICE_S = 1e-15


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
        return {"measured": ["steps"], **self.steps, "tp": self.tp}

    def demand(
        self, prompt_tokens: ArrayLike, output_tokens: ArrayLike
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Seconds of compute and of KV reads; float64 [n] each. Tokens as in a large step."""
        p = np.asarray(prompt_tokens, np.float64)
        d = np.asarray(output_tokens, np.float64)
        token_s = max(float(self._linear_s(np.array([LARGE_STEP]))[0]) / LARGE_STEP, LEAST_PRICE_S)
        compute_s = (p + d) * token_s + d * self.steps["sequence_s"]
        compute_s = compute_s + pairs_up_to(self._reach, p) * self.steps["pair_s"]
        memory_s = reads(self._reach, p, d) * max(self.steps["kv_token_s"], LEAST_PRICE_S)
        return self._stalled * compute_s, self._stalled * memory_s

    def step_table(
        self, max_num_batched_tokens: int, max_num_seqs: int, overlap: float = 1.0
    ) -> StepTable:
        """The fitted prices; what the log did not tell apart is in the price per token."""
        tokens = np.arange(max_num_batched_tokens + 1, dtype=np.float64)
        linear_s = self._linear_s(tokens)
        head_s = np.arange(max_num_seqs + 1, dtype=np.float64) * self.steps["sequence_s"]
        return StepTable(
            linear_s=self._stalled * linear_s,
            head_s=self._stalled * head_s,
            # Older profiles have no price of a step for having prompt tokens at all.
            prefill_attention=self._stalled
            * np.array([self.steps["pair_s"], 0.0, self.steps.get("prefill_step_s", 0.0)]),
            decode_attention=self._stalled * np.array([self.steps["kv_token_s"], 0.0, 0.0]),
            overlap=float(overlap),
            step_s=float(self._stalled * self.steps["step_s"]),
            reach=self._reach,
        )

    @cached_property
    def _reach(self) -> Reach:
        """What the log counted by."""
        stated = self.steps.get("reach")
        return ALL_TOKENS if stated is None else reach_from_metadata(stated, "fitted.steps.reach")

    def _linear_s(self, tokens: NDArray[np.float64]) -> NDArray[np.float64]:
        knots = np.array(self.steps["knots_tokens"], np.float64)
        return segments(tokens, knots) @ np.array(self.steps["token_s"], np.float64)

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
    if not _is_number(steps.get("prefill_step_s", 0.0)):
        raise BlendplanError(f"{where}: expected a number prefill_step_s")
    pieces = [steps.get(name) for name in ("knots_tokens", "token_s")]
    if not all(
        isinstance(piece, list) and piece and all(map(_is_number, piece)) for piece in pieces
    ):
        raise BlendplanError(f"{where}: expected lists of numbers knots_tokens and token_s")
    if len(steps["knots_tokens"]) != len(steps["token_s"]):
        raise BlendplanError(f"{where}: knots_tokens and token_s differ in length")
    if not recorded_with(steps, model, tp):
        raise BlendplanError(
            f"the step log in GPU profile {gpu.name} was recorded with {steps.get('model')} on "
            f"{steps.get('tp', 1)} GPUs, not {model.name} on {tp}; record one with this model"
        )
    if "reach" in steps:
        reach_from_metadata(steps["reach"], f"{where}.reach")
    return StepLogCost(model, tp, steps)


def recorded_with(steps: object, model: ModelSpec, tp: int) -> bool:
    """Whether a table ``fitted.steps`` is of a model on that many GPUs."""
    if not isinstance(steps, Mapping):
        return False
    held = sum(shape.parameters for shape in linear_shapes(model))
    return held == steps.get("linear_parameters") and tp == steps.get("tp", 1)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

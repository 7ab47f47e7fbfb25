"""`CostModel`: what every way of pricing requests and steps offers, and how it is asked."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from blendplan.cost.step import StepTable
from blendplan.errors import BlendplanError
from blendplan.hardware.engine_limits import EngineLimits


class CostModel(Protocol):
    """Prices of one model on one GPU (or tensor-parallel group of GPUs)."""

    @property
    def name(self) -> str:
        """The name that it has in `COST_MODELS`; a plan is simulated again by it."""
        ...

    @property
    def note(self) -> str:
        """What a user should know of how far to trust the prices, one line, or empty."""
        ...

    def parameters(self) -> dict[str, Any]:
        """Everything the prices follow from, as JSON values."""
        ...

    def demand(
        self, prompt_tokens: ArrayLike, output_tokens: ArrayLike
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Seconds of compute and of memory traffic that n requests need; float64 [n] each.

        Prompts count in full: prefix sharing is the caller's to subtract.
        """
        ...

    def step_table(
        self, max_num_batched_tokens: int, max_num_seqs: int, overlap: float = 1.0
    ) -> StepTable:
        """Prices of steps up to that many tokens and sequences under overlap exponent q.

        Called by way of `step_table` of this module, which has checked them.
        """
        ...


def step_table(costs: CostModel, limits: EngineLimits, overlap: float = 1.0) -> StepTable:
    """The prices of a cost model for all steps that the limits allow, checked both ways.

    Args:
        costs: any cost model, also of third parties.
        limits: of the engine.
        overlap: the overlap exponent q.

    Raises:
        BlendplanError: an exponent below 1, or a table of other sizes or with a price that is
            negative or no number.
    """
    if not overlap >= 1.0:
        raise BlendplanError(f"overlap exponent {overlap}: expected at least 1 (inf is perfect)")
    table = costs.step_table(limits.max_num_batched_tokens, limits.max_num_seqs, overlap)
    sizes = {
        "linear_s": limits.max_num_batched_tokens + 1,
        "head_s": limits.max_num_seqs + 1,
        "prefill_attention": 3,
        "decode_attention": 3,
    }
    for name, size in sizes.items():
        prices = np.asarray(getattr(table, name))
        if prices.dtype != np.float64 or prices.shape != (size,):
            raise BlendplanError(
                f"cost model {costs.name!r}: {name} is {prices.dtype} {list(prices.shape)}; "
                f"expected float64 [{size}]"
            )
        wrong = np.flatnonzero(~(np.isfinite(prices) & (prices >= 0.0)))
        if len(wrong):
            raise BlendplanError(
                f"cost model {costs.name!r}: {name}[{wrong[0]}] is {prices[wrong[0]]}; "
                f"expected seconds, 0 or more"
            )
    if table.linear_s[0] != 0.0 or table.head_s[0] != 0.0:
        raise BlendplanError(f"cost model {costs.name!r}: an empty step must cost nothing")
    if table.overlap != overlap or not table.step_s >= 0.0:
        raise BlendplanError(
            f"cost model {costs.name!r}: overlap {table.overlap} and step_s {table.step_s}; "
            f"expected {overlap} and seconds, 0 or more"
        )
    return table

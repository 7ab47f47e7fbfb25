"""`Started`: what is to be said of engines when they have started."""

from blendplan.engines.launch import Remark
from blendplan.engines.protocol import Capacity
from blendplan.engines.registry import ENGINES
from blendplan.errors import BlendplanError
from blendplan.hardware.engine_limits import EngineLimits


class Started:
    """Compares engines that have started with the plan and with one another.

    Args:
        name: of the engine.
        planned: limits that were planned for; None where the engine's own are taken.
        remark: called with what differs.

    Attributes:
        capacity: of the first one; None while none has started.
    """

    def __init__(self, name: str, planned: EngineLimits | None, remark: Remark) -> None:
        self.capacity: Capacity | None = None
        self._name = name
        self._planned = planned
        self._remark = remark

    def check(self, replica: int, capacity: Capacity) -> None:
        """Look at an engine that has started.

        Raises:
            BlendplanError: it is of another version than the others.
        """
        if self.capacity is None:
            self.capacity = capacity
            _check_version(self._name, capacity, self._remark)
            if self._planned is not None:
                _compare(self._planned, capacity.limits, self._remark)
        elif capacity.version != self.capacity.version:
            raise BlendplanError(
                f"replica {replica} runs {capacity.version}, others {self.capacity.version}: "
                "install the same version on all nodes"
            )


def _check_version(name: str, capacity: Capacity, remark: Remark) -> None:
    """Remark on a version of the engine that nobody has tried."""
    tested = ENGINES.get(name).tested
    if tested and capacity.version.split("+")[0] not in tested:
        remark(
            f"this is {capacity.version}, and blendplan was tested with {' and '.join(tested)}: "
            "the order of admission may not be the plan's"
        )


def _compare(planned: EngineLimits, actual: EngineLimits, remark: Remark) -> None:
    """Remark on limits of the started engine that are not the plan's; its own are kept to."""
    if planned.kv_blocks * planned.block_size != actual.kv_blocks * actual.block_size:
        remark(
            f"the plan was made for a KV cache of {planned.kv_tokens:,} tokens, the engine has "
            f"{actual.kv_tokens:,}: the memory partition follows the engine"
        )
    if actual.block_size > planned.block_size:
        remark(
            f"the plan was made for blocks of {planned.block_size} tokens, the engine has "
            f"{actual.block_size}: fewer prefixes are shared"
        )
    seats = planned.max_num_seqs, planned.max_num_batched_tokens
    if seats != (actual.max_num_seqs, actual.max_num_batched_tokens):
        remark(
            f"the plan was made for {planned.max_num_seqs} sequences and "
            f"{planned.max_num_batched_tokens} tokens a step, the engine takes "
            f"{actual.max_num_seqs} and {actual.max_num_batched_tokens}"
        )
    if planned.async_scheduling and not actual.async_scheduling:
        remark(
            "the plan was made for vLLM's asynchronous scheduling, which the engine does not have: "
            "some of its steps are not the plan's"
        )

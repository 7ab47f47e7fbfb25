"""The compiled policy `blend` behind the interface of the slow one: the only contact with it."""

from blendplan.hardware.engine_settings import EngineSettings
from blendplan.policy import state_machine
from blendplan.policy.blend.start import BlendOptions
from blendplan.policy.known import PolicyInput
from blendplan.policy.registry import Policy, make_policy
from blendplan.policy.state import SHARE


class CompiledBlend:
    """The state machine of a fresh `blend` policy."""

    def __init__(
        self, columns: PolicyInput, settings: EngineSettings, options: BlendOptions
    ) -> None:
        self.policy: Policy = make_policy("blend", columns, settings, options=options)

    def begin_step(self, running: int, used_tokens: float) -> int:
        return int(state_machine.begin_step(self.policy.state, running, used_tokens))

    def next_request(self, running: int) -> int:
        return int(state_machine.next_request(self.policy.state, running))

    def admitted(self, request: int) -> None:
        state_machine.admitted(self.policy.state, request)

    def preempted(self, request: int) -> None:
        state_machine.preempted(self.policy.state, request)

    def finished(self, request: int) -> None:
        state_machine.finished(self.policy.state, request)

    def shares(self) -> tuple[float, float]:
        """KV tokens of the compute and of the memory side, as of the last step."""
        level = self.policy.state.level
        return float(level[SHARE]), float(level[SHARE + 1])

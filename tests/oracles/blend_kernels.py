"""The compiled policy `blend` behind the interface of the slow one: the only contact with it."""

from dataclasses import asdict

from blendplan.hardware.engine_limits import EngineLimits
from blendplan.policy.blend.revise import revise
from blendplan.policy.blend.start import BlendOptions
from blendplan.policy.known import PolicyInput
from blendplan.policy.make import make_policy
from blendplan.policy.progress import Progress
from blendplan.policy.state_machine import Policy


class CompiledBlend:
    """The state machine of a fresh `blend` policy."""

    def __init__(self, columns: PolicyInput, limits: EngineLimits, options: BlendOptions) -> None:
        self.policy: Policy = make_policy("blend", columns, limits, parameters=asdict(options))
        self._limits = limits
        self._shares = (0.0, 0.0)

    @property
    def width(self) -> int:
        """Steps of a bucket."""
        return int(self.policy.state.parameters.bucket_steps)

    def revise(self, columns: PolicyInput, progress: Progress) -> None:
        """Go over to what is known by now."""
        self.policy = revise(self.policy, columns, progress, self._limits)

    def left(self) -> dict[str, float]:
        """What the policy believes to be under way or still to do."""
        now = self.policy.state.now[0]
        names = ("running", "running_offset", "short_tokens", "compute_tokens", "tokens_left")
        left = {name: float(now[name]) for name in (*names, "reads_running", "long_running")}
        for side, name in enumerate(("compute", "memory")):
            left[f"reads_left {name}"] = float(now.reads_left[side])
            left[f"reads_likely {name}"] = float(now.reads_likely[side])
        return left

    def begin_step(self, running: int, used_tokens: float) -> int:
        transitions, state = self.policy.transitions, self.policy.state
        budget = int(transitions.begin_step(state, running, used_tokens))
        self._shares = transitions.shares(state)
        return budget

    def next_request(self, running: int) -> int:
        return int(self.policy.transitions.next_request(self.policy.state, running))

    def admitted(self, request: int) -> None:
        self.policy.transitions.admitted(self.policy.state, request)

    def preempted(self, request: int) -> None:
        self.policy.transitions.preempted(self.policy.state, request)

    def finished(self, request: int) -> None:
        self.policy.transitions.finished(self.policy.state, request)

    def shares(self) -> tuple[float, float]:
        """KV tokens of the compute and of the memory side, as of the last step."""
        return self._shares

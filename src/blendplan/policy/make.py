"""`make_policy`: a policy by its name."""

from dataclasses import replace

from blendplan.hardware.engine_limits import EngineLimits
from blendplan.policy.known import PolicyInput
from blendplan.policy.registry import POLICIES
from blendplan.policy.siblings import keep_together
from blendplan.policy.state_machine import Parameters, Policy, PolicyKind


def make_policy(
    name: str,
    known: PolicyInput,
    limits: EngineLimits,
    *,
    seed: int = 0,
    parameters: Parameters | None = None,
) -> Policy:
    """A fresh policy of the given name over n requests.

    Args:
        name: one of `POLICIES`.
        known: what is known of the requests.
        limits: of the engine.
        seed: for policies that draw random numbers.
        parameters: of the policy's own; its defaults without them.

    Raises:
        BlendplanError: the name is unknown.
    """
    made = make_of_kind(POLICIES.get(name), known, limits, seed=seed, parameters=parameters or {})
    return replace(made, name=name)


def make_of_kind(
    kind: PolicyKind,
    known: PolicyInput,
    limits: EngineLimits,
    *,
    seed: int,
    parameters: Parameters,
) -> Policy:
    """A fresh policy of a kind; answers of one request are admitted in a row. Args: as above."""
    made = kind.make(known, limits, seed=seed, parameters=parameters)
    return keep_together(made, known.request)

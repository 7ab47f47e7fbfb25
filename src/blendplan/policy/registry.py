"""The named policies: how each orders the requests, and the state it starts with."""

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from blendplan.errors import BlendplanError
from blendplan.hardware.engine_settings import EngineSettings
from blendplan.policy.blend.start import Arrangement, BlendOptions, blend_state, no_blend_state
from blendplan.policy.blend.timetable import arrange
from blendplan.policy.known import PolicyInput
from blendplan.policy.state import BLEND, COMPUTE, MEMORY, QUEUE, SCANNERS, PolicyState

POLICIES = ("fcfs", "random", "dfs", "blendserve", "blend")


@dataclass(frozen=True)
class Policy:
    """A policy by name with the state it starts from.

    The state's arrays change as it runs: make one policy per run.
    """

    name: str
    state: PolicyState
    parameters: dict[str, float | int | str]


def make_policy(
    name: str,
    columns: PolicyInput,
    settings: EngineSettings,
    *,
    seed: int = 0,
    options: BlendOptions | None = None,
) -> Policy:
    """A fresh policy of the given name.

    ``fcfs`` admits in input order, ``random`` in a seeded shuffle (the paper's Balance), ``dfs``
    in depth-first order of the prefix tree (what the paper gives vLLM, SGLang and NanoFlow) and
    ``blendserve`` from both ends of the density-sorted order (paper 5.3).

    Raises:
        BlendplanError: the name is unknown.
    """
    check_policy_name(name)
    options = options or BlendOptions()
    parameters: dict[str, float | int | str] = asdict(options) if name == "blend" else {}
    if name == "random" or (name == "blend" and options.order == "random"):
        parameters["seed"] = seed
    kind = policy_kind(name, parameters)
    arrangement = arrange(columns, settings, options) if kind == BLEND else None
    order = _order(options.order if name == "blend" else name, columns, seed)
    state = initial_state(kind, order, columns, settings, arrangement, options)
    return Policy(name, state, parameters)


def _order(name: str, columns: PolicyInput, seed: int) -> NDArray[np.int64]:
    if name == "fcfs":
        return np.arange(len(columns), dtype=np.int64)
    if name == "random":
        return np.random.default_rng(seed).permutation(len(columns))
    if name == "blendserve":
        return columns.by_density
    return columns.depth_first


def policy_kind(name: str, parameters: Mapping[str, float | int | str]) -> int:
    """QUEUE, SCANNERS or BLEND; ``blend`` is a queue where a plain order turned out better."""
    if name == "blend" and parameters["order"] == "blend":
        return BLEND
    return SCANNERS if name == "blendserve" else QUEUE


def check_policy_name(name: str) -> None:
    """Raise a BlendplanError with the nearest names when there is no such policy."""
    if name not in POLICIES:
        near = difflib.get_close_matches(name, POLICIES, n=1)
        hint = (
            f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(POLICIES)}"
        )
        raise BlendplanError(f"unknown policy {name!r}; {hint}")


def initial_state(
    kind: int,
    order: NDArray[np.int64],
    columns: PolicyInput,
    settings: EngineSettings,
    arrangement: Arrangement | None = None,
    options: BlendOptions | None = None,
) -> PolicyState:
    """The state of a policy before the first step."""
    compute_heavy = columns.density >= columns.root_density
    blend = no_blend_state()
    if arrangement is not None:
        blend = blend_state(columns, arrangement, settings, options or BlendOptions())
        compute_heavy = ~blend.memory_side
    return PolicyState(
        kind=kind,
        order=np.ascontiguousarray(order, dtype=np.int64),
        resident_tokens=columns.new_prompt_tokens + columns.output_tokens / 2,
        new_prompt_tokens=columns.new_prompt_tokens,
        output_tokens=columns.output_tokens,
        density=columns.density,
        side=np.where(compute_heavy, COMPUTE, MEMORY).astype(np.int8),
        cursor=np.array([0, len(order) - 1], dtype=np.int64),
        level=_initial_level(settings),
        kv_tokens=float(settings.kv_tokens),
        root_density=columns.root_density,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        blend=blend,
    )


def _initial_level(settings: EngineSettings) -> NDArray[np.float64]:
    # A queue has no partition: everything is one side's.
    kv_tokens = float(settings.kv_tokens)
    return np.array([0.0, 0.0, kv_tokens, 0.0, 0.0, 0.0, 0.0, 0.0])

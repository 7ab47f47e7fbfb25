"""`run_sample`: run a few of the requests for real, to learn how long their outputs are."""

from pathlib import Path
from typing import Any

from blendplan.lengths.sample import choose_sample
from blendplan.planning.planner import plan
from blendplan.replaying.run import Replayed, replay
from blendplan.requests.columns import Requests, select
from blendplan.tree.build import build_tree

# A sample is too small for its order to matter: it runs depth-first, as fast as the engine takes
# it, so the plan needs neither the engine's GPU nor its capacity.
_ANY_GPU, _ANY_MODEL, _ROOM_FOR_ALL = "a100-80g", "llama-3.1-8b", 1 << 30


def run_sample(
    requests: Requests,
    engine: str,
    output: Path | str,
    *,
    fraction: float = 0.01,
    seed: int = 0,
    **wish: Any,
) -> Replayed:
    """Choose a sample of the requests and run it.

    The results file serves ``lengths="sample:FILE"`` of `plan`, and `replay` takes its answers
    over with ``already``, so that nothing runs twice.

    Args:
        requests: all of them.
        engine, output: as of `replay`; the engine must be a real one to learn anything.
        fraction, seed: as of `choose_sample`.
        wish: further arguments of `replay`, among them ``model``.

    Raises:
        BlendplanError: as `choose_sample` and `replay`.
    """
    rows = choose_sample(build_tree(requests), requests, fraction, seed)
    made = plan(
        select(requests, rows),
        gpu=_ANY_GPU,
        model=_ANY_MODEL,
        policy="dfs",
        kv_tokens=_ROOM_FOR_ALL,
    )
    return replay(made, engine, output, own_capacity=True, **wish)

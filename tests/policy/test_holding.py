"""What a request holds by kinds of layer groups, and a live policy that keeps to it."""

import json

import numpy as np
import pytest

from blendplan.errors import BlendplanError
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.hardware.kv_layout import kv_layout
from blendplan.policy.holding import GROWS_BY_ONE, Holding, holding_from_metadata, holding_of
from blendplan.policy.live import LivePolicy
from blendplan.policy.make import make_policy
from tests.hardware.layer_lists import MODELS
from tests.oracles.layer_kinds import HOLDINGS
from tests.policy.test_policies import columns_of

MIXED = Holding(2.0, ((10.0, 3.0),), ((21.0, 1.0),), 7.0)


def test_slots_of_windows_chunks_and_states() -> None:
    contexts = np.array([1.0, 10.0, 11.0, 500.0])
    assert GROWS_BY_ONE.held(contexts).tolist() == contexts.tolist()
    assert MIXED.level(contexts).tolist() == [7 + 3 + 1, 7 + 30 + 10, 7 + 30 + 11, 7 + 30 + 11]
    assert MIXED.held(contexts).tolist() == (2 * contexts + MIXED.level(contexts)).tolist()


@pytest.mark.parametrize("holding", [*HOLDINGS, MIXED])
@pytest.mark.parametrize("slots", [0, 9, 40, 41, 977])
def test_the_longest_context_that_slots_hold(holding: Holding, slots: int) -> None:
    longest = holding.longest(slots)
    assert longest == 0 or holding.held(longest) <= slots
    assert holding.held(longest + 1) > slots or longest > 10**12


@pytest.mark.parametrize("name", MODELS)
def test_holdings_of_layouts_are_what_the_layouts_say(name: str) -> None:
    """Without rounding to blocks; of chunks the mean over a chunk."""
    layout = kv_layout(MODELS[name])
    holding = holding_of(layout)
    contexts = np.arange(1, 20_000, 7)
    held = holding._replace(chunks=()).held(contexts)
    for tokens, slots in holding.chunks:
        held += slots * ((contexts - 1) % tokens + 1)
        whole = (10 * tokens + np.arange(1, tokens + 1) - 1) % tokens + 1
        assert Holding(0.0, (), ((tokens, 1.0),)).level(10 * tokens) == whole.mean()
    assert held == pytest.approx(layout.held_tokens(contexts))
    assert holding.growth == layout.growth
    assert (holding == GROWS_BY_ONE) == layout.plain


@pytest.mark.parametrize("holding", [*HOLDINGS, MIXED])
def test_metadata_give_a_holding_back(holding: Holding) -> None:
    stated = json.loads(json.dumps(holding.as_metadata()))
    assert holding_from_metadata(stated, "holding") == holding


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"growth": -1}, "holding.growth is -1"),
        ({"windows": 3}, "holding.windows must be a list"),
        ({"chunks": [[1]]}, "holding.chunks must be a list of pairs"),
        ({"windows": [[0, 1]]}, "holding.windows is 0"),
        ({"more": 1}, "expected the keys growth"),
    ],
)
def test_other_metadata_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(BlendplanError, match=message):
        holding_from_metadata(MIXED.as_metadata() | change, "holding")


def test_a_live_policy_admits_what_has_room_in_all_groups() -> None:
    """Free slots are counted against what prompts hold in windows and states too."""
    n = 8
    columns = columns_of(n)
    limits = EngineLimits(kv_tokens=4096, max_num_seqs=n, max_num_batched_tokens=4096)
    prompts = columns.prompt_tokens.astype(np.int64)

    def admitted(holding: Holding) -> int:
        live = LivePolicy(
            make_policy("fcfs", columns, limits), prompts, np.zeros(n), limits, None, holding
        )
        return len(live.admit(int(prompts[:4].sum())))

    assert admitted(GROWS_BY_ONE) == 4
    assert admitted(Holding(1.0, (), (), float(prompts[:4].sum()) / 3)) < 4
    assert admitted(Holding(0.0, ((1.0, 1.0),))) == n

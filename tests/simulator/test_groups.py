"""The simulated engine over layouts of every kind, step by step beside the slow one."""

from hypothesis import event, given, settings
from hypothesis import strategies as st

from blendplan.hardware.engine_limits import EngineLimits
from blendplan.hardware.kv_layout import KvGroup, KvLayout
from tests.oracles.lockstep import (
    FastEngine,
    assert_same_state,
    input_order,
    odd_prices,
    workload_of,
)
from tests.oracles.slow_engine import SlowEngine


@st.composite
def layouts(draw: st.DrawFn) -> KvLayout:
    """One to three kinds of groups; blocks of attention may be larger than those of states."""
    unit = draw(st.integers(1, 4))
    groups = []
    kinds = draw(st.lists(st.sampled_from(["full", "sliding", "chunked", "state"]), max_size=2))
    has_chunks = "chunked" in kinds
    for bucket, kind in enumerate([*kinds, draw(st.sampled_from(["full", "sliding", "state"]))]):
        bounded = kind in ("sliding", "chunked")
        # vLLM takes no chunks beside blocks of another size.
        larger = kind != "state" and not has_chunks
        times = draw(st.sampled_from([1, 2, 4])) if larger else 1
        group = KvGroup(
            kind=kind,
            layers=1,
            reach=draw(st.integers(1, 14)) if bounded else 0,
            block_tokens=unit * times,
            page_bytes=1,
            bucket=bucket,
            checkpoint_tokens=draw(st.sampled_from([0, 1, 2])) if kind == "state" else 0,
        )
        groups += [group] * draw(st.integers(1, 3))
    return KvLayout(tuple(groups))


@given(layouts(), st.data())
@settings(max_examples=120)
def test_groups_beside_the_slow_engine(layout: KvLayout, data: st.DataObject) -> None:
    tokens = st.integers(0, 1)
    stems = data.draw(st.lists(st.lists(tokens, min_size=1, max_size=20), min_size=1, max_size=3))
    stem, tail = st.sampled_from(stems), st.lists(tokens, min_size=1, max_size=6)
    prompt = st.one_of(stem, st.builds(lambda a, b: a + b, stem, tail), tail)
    prompts = data.draw(st.lists(prompt, min_size=1, max_size=10))
    n = len(prompts)
    outputs = data.draw(st.lists(st.integers(1, 14), min_size=n, max_size=n))
    slots = data.draw(st.integers(1, 5))
    most_tokens = data.draw(st.integers(slots, 24))
    asynchronous = data.draw(st.booleans())
    longest = max(len(p) + d for p, d in zip(prompts, outputs, strict=True))
    layout = layout.limited(
        in_flight_tokens=most_tokens * (1 + asynchronous), max_model_len=longest
    )
    # With a step under way, a state that passes a boundary in each needs a block more than vLLM
    # counts; where it is lacking, a request preempts itself for ever, there as here.
    blocks = int(layout.needed_blocks(longest)) + data.draw(st.integers(0, 8))
    blocks += sum(group.kind == "state" for group in layout.groups)
    limits = EngineLimits(
        blocks * layout.block_tokens, slots, most_tokens, layout.block_tokens, asynchronous
    )
    slow = SlowEngine(
        prompts,
        outputs,
        blocks=blocks,
        layout=layout,
        max_num_batched_tokens=most_tokens,
        max_num_seqs=slots,
        async_scheduling=asynchronous,
    )
    fast = FastEngine(
        workload_of(prompts, outputs, layout.hash_tokens),
        limits,
        input_order(n, limits),
        odd_prices(limits, 1.0),
        # What the compiled engine has for one group of full attention is tested elsewhere.
        layout,
    )
    done = False
    tries = 0
    while not done:
        slow.step()
        done = fast.step()
        assert_same_state(fast, slow)
        tries += 1
        assert tries < 5000, "nobody gets on"
    assert slow.finished == n
    assert fast.free_blocks == blocks
    event(f"preempted {'nobody' if slow.preemptions == 0 else 'somebody'}")
    event(f"prefix hits: {any(slow.cached_tokens.values())}")
    event(f"states: {layout.has_states}")

"""CUDA-graph sizes against every possible choice, and what graphs do over a run."""

import math
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blendplan.errors import BlendplanError
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.hardware.lookup import gpu_spec
from blendplan.simulator.cuda_graphs import (
    GraphSizes,
    GraphUse,
    StepSizes,
    best_sizes,
    fill_gaps,
    graph_use,
)
from blendplan.simulator.engine_graphs import ENGINE_GRAPHS, graph_uses, graphs_in, vllm_graphs

histograms = st.dictionaries(st.integers(1, 40), st.integers(1, 1000), min_size=1, max_size=9)
A100 = gpu_spec("a100-80g")


def cost(steps: dict[int, int], sizes: list[int], most_padding: float) -> tuple[int, int]:
    """Steps without a graph, and padded tokens, by the plain rule."""
    without = padded = 0
    for tokens, number in steps.items():
        size = min(size for size in sizes if size >= tokens)
        if size > most_padding * tokens:
            without += number
        else:
            padded += (size - tokens) * number
    return without, padded


@given(
    steps=histograms,
    must=st.sets(st.integers(1, 50), max_size=2),
    more=st.integers(0, 5),
    most_padding=st.sampled_from([math.inf, 3.0, 2.0, 1.5]),
)
@settings(max_examples=300)
def test_no_choice_is_better(
    steps: dict[int, int], must: set[int], more: int, most_padding: float
) -> None:
    top = max({*steps, *must})
    most = len(must | {top}) + more
    sizes = best_sizes(steps, most, must=must, most_padding=most_padding)
    assert sizes == sorted(set(sizes)) and len(sizes) <= most and must <= set(sizes)
    others = sorted({*steps, *must} - must - {top})
    best = min(
        cost(steps, sorted({*must, top, *some}), most_padding)
        for count in range(more + 1)
        for some in combinations(others, min(count, len(others)))
    )
    assert cost(steps, sizes, most_padding) == best


def test_sizes_by_hand() -> None:
    # To pad 1 to 2, and 3 and 8 to 10, costs 10 + 7 + 2; to pad 1 and 2 to 3 would cost 30.
    assert best_sizes({1: 10, 2: 10, 3: 1, 8: 1, 10: 5}, 2) == [2, 10]
    assert best_sizes({3: 100, 17: 1}, 1) == [17]
    # A step of 3 may not be padded to 17: it runs without a graph, unless there is room for both.
    assert best_sizes({3: 100, 17: 1}, 2, most_padding=2.0) == [3, 17]
    assert best_sizes({0: 12}, 4, must={64}) == [64]
    assert best_sizes({}, 4) == []


def test_a_choice_without_room_is_refused() -> None:
    with pytest.raises(BlendplanError, match="0 CUDA-graph sizes; at least 1 are needed"):
        best_sizes({1: 1}, 0)
    with pytest.raises(BlendplanError, match="1 CUDA-graph sizes; at least 2 are needed"):
        best_sizes({9: 1}, 1, must={4})


def test_the_most_frequent_of_very_many_sizes_are_kept() -> None:
    steps = dict.fromkeys(range(1, 5000, 2), 1) | {1002: 10**6, 2004: 10**6, 4998: 10**6}
    sizes = best_sizes(steps, 6)
    assert {1002, 2004, 4998} <= set(sizes) and sizes[-1] == 4999 and len(sizes) == 6


@given(
    sizes=st.sets(st.integers(1, 3000), min_size=1, max_size=12).map(sorted),
    more=st.integers(0, 60),
)
def test_gaps_are_filled_widest_first(sizes: list[int], more: int) -> None:
    filled = fill_gaps(sizes, len(sizes) + more)
    assert filled == sorted(set(filled)) and set(sizes) <= set(filled)
    assert len(filled) <= len(sizes) + more and max(filled) == max(sizes)

    def gaps(all_sizes: list[int]) -> list[float]:
        below = [1, *(size + 1 for size in all_sizes[:-1])]
        return [b / a for a, b in zip(below, all_sizes, strict=True) if b - a > 7]

    assert max(gaps(filled), default=0.0) <= max(gaps(sizes), default=0.0)
    if len(filled) < len(sizes) + more:
        assert gaps(filled) == []


def test_the_graph_of_a_step() -> None:
    vllm = vllm_graphs([1, 8, 20, 64], max_num_seqs=24)
    assert vllm == GraphSizes(mixed=[1, 8, 20, 64], decode=[1, 8, 20])
    assert vllm.graph_of(5, decode=True) == ("decode", 8)
    assert vllm.graph_of(5, decode=False) == ("mixed", 8)
    # There is no full graph of 64 tokens for at most 24 requests.
    assert vllm.graph_of(21, decode=True) == ("mixed", 64)
    assert vllm.graph_of(64, decode=False) == ("mixed", 64)
    assert vllm.graph_of(65, decode=False) == ("none", 65)
    sglang = ENGINE_GRAPHS["sglang"].captured([10, 30], [4, 16])
    assert sglang.graph_of(16, decode=True) == ("decode", 16)
    assert sglang.graph_of(17, decode=True) == ("none", 17)
    assert sglang.graph_of(5, decode=False) == ("mixed", 10)
    assert sglang.graph_of(4, decode=False) == ("none", 4)
    assert sglang.graph_of(14, decode=False) == ("none", 14)
    assert sglang.graph_of(15, decode=False) == ("mixed", 30)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("FULL_AND_PIECEWISE", ("decode", "mixed")),
        ("PIECEWISE", ("mixed", "mixed")),
        ("FULL", ("mixed", "mixed")),
        ("FULL_DECODE_ONLY", ("decode", "none")),
        ("NONE", ("none", "none")),
    ],
)
def test_modes_of_vllm(mode: str, expected: tuple[str, str]) -> None:
    graphs = vllm_graphs([4, 8], 8, mode)
    kinds = tuple(graphs.graph_of(3, decode=decode)[0] for decode in (True, False))
    assert kinds == expected


def test_use_by_hand() -> None:
    steps = StepSizes(mixed={10: 3, 100: 1}, decode={4: 5, 8: 1})
    use = graph_use(steps, GraphSizes(mixed=[8, 16], decode=[8]))
    # 10 tokens in all but the largest of 10 steps; 3 x 6 and 5 x 4 are padded.
    assert use == GraphUse(steps=9 / 10, tokens=58 / 158, padding=38 / 158)
    nothing = graph_use(StepSizes({}, {}), GraphSizes([8], [8]))
    assert nothing == GraphUse(0.0, 0.0, 0.0)


def test_own_grids() -> None:
    """Those of vLLM 0.32 and SGLang 0.5.23, which tests/engines compare with the engines' own."""
    limits = EngineLimits(100_000)
    vllm = ENGINE_GRAPHS["vllm"].own(limits, A100, 1)
    assert vllm.mixed == vllm.decode == [1, 2, 4, *range(8, 256, 8), *range(256, 513, 16)]
    blackwell = ENGINE_GRAPHS["vllm"].own(limits, gpu_spec("b200"), 1)
    assert blackwell.mixed[-1] == 1024
    few = ENGINE_GRAPHS["vllm"].own(EngineLimits(100_000, max_num_seqs=9), A100, 1)
    assert few == GraphSizes(mixed=[1, 2, 4, 8, 9, 16], decode=[1, 2, 4, 8, 9])
    sglang = ENGINE_GRAPHS["sglang"].own(limits, A100, 1)
    assert (sglang.decode[-1], sglang.mixed[-1]) == (256, 2048)
    assert ENGINE_GRAPHS["sglang"].own(limits, A100, 4).decode[-1] == 512


@pytest.mark.parametrize("engine", ENGINE_GRAPHS)
def test_common_steps_pad_nothing(engine: str) -> None:
    limits = EngineLimits(100_000)
    steps = StepSizes(
        mixed={384: 6000, 640: 900, 2048: 300} | dict.fromkeys(range(100, 380), 2),
        decode=dict.fromkeys(range(1, 300), 3),
    )
    chosen = ENGINE_GRAPHS[engine].chosen(steps, limits, A100, 1)
    own = ENGINE_GRAPHS[engine].own(limits, A100, 1)
    assert {384, 640, 2048} <= set(chosen.mixed)
    assert len(chosen.mixed) <= len(own.mixed)
    assert chosen.decode[-1] >= 299
    use, own_use = graph_use(steps, chosen), graph_use(steps, own)
    assert use.steps == 1.0 and use.padding < 0.01
    assert (own_use.steps, -own_use.padding) < (use.steps, -use.padding)


@given(
    mixed=st.dictionaries(st.integers(1, 600), st.integers(1, 1000), max_size=40),
    decode=st.dictionaries(st.integers(1, 64), st.integers(1, 1000), max_size=40),
    seqs=st.integers(1, 64),
    batched=st.integers(1, 600),
    tp=st.sampled_from([1, 4]),
)
@settings(max_examples=200)
def test_chosen_sizes_are_legal(
    mixed: dict[int, int], decode: dict[int, int], seqs: int, batched: int, tp: int
) -> None:
    limits = EngineLimits(100_000, max_num_seqs=seqs, max_num_batched_tokens=batched)
    steps = StepSizes(
        {min(size, batched): number for size, number in mixed.items()},
        {min(size, seqs, batched): number for size, number in decode.items()},
    )
    for engine, graphs in ENGINE_GRAPHS.items():
        chosen, own = (
            graphs.chosen(steps, limits, A100, tp),
            graphs.own(limits, A100, tp),
        )
        for sizes, most in ((chosen.mixed, batched), (chosen.decode, seqs)):
            assert sizes == sorted(set(sizes)) and (not sizes or sizes[0] >= 1)
            assert max(sizes, default=0) <= most, engine
        assert len(chosen.mixed) <= max(2, len(own.mixed))
        assert graph_use(steps, chosen).steps >= graph_use(steps, own).steps
        for size in steps.decode:
            assert chosen.graph_of(size, decode=True)[0] == "decode", engine


def test_the_graphs_of_a_plan() -> None:
    limits = EngineLimits(1600, max_num_seqs=8, max_num_batched_tokens=64)
    engine = limits.as_metadata() | {
        "mixed_steps": {"40": 9, "64": 1},
        "decode_steps": {"8": 2},
        "graph_sizes": {
            "vllm": {"mixed": [8, 40], "decode": [8]},
            "sglang": {"mixed": [40, 64], "decode": [4]},
            "another": {"mixed": [1], "decode": [1]},
        },
    }
    assert graphs_in(engine)["vllm"] == GraphSizes([8, 40], [8])
    uses = graph_uses(engine, A100, 1)
    assert list(uses) == ["vllm", "sglang"]
    assert uses["vllm"]["use"] == {"steps": 11 / 12, "tokens": 376 / 440, "padding": 0.0}
    assert uses["vllm"]["own_sizes"] == {"mixed": [1, 2, 4, 8, 16], "decode": [1, 2, 4, 8]}
    assert uses["vllm"]["own_use"]["steps"] == 2 / 12
    assert uses["sglang"]["use"] == {"steps": 10 / 12, "tokens": 424 / 440, "padding": 0.0}

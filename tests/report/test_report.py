"""Tables and pictures: numbers as people read them, groups of requests, the time line."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from blendplan.report.breakdown import breakdown, families
from blendplan.report.proof import gain_words
from blendplan.report.quantities import binary_size, count, duration, gain, rounded, share
from blendplan.report.summary import comparison, headline_rows
from blendplan.report.tables import Column, Columns
from blendplan.report.timeline import Row, Timeline, bars, resample


def drawn(renderable: RenderableType, width: int = 160) -> list[str]:
    console = Console(width=width, markup=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get().splitlines()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (0.0123, "12.3 ms"),
        (0.9996, "1.00 s"),
        (3.214, "3.21 s"),
        (99.6, "1 min 40 s"),
        (250.0, "4 min 10 s"),
        (3599.7, "1 h 00 min"),
        (18_120.0, "5 h 02 min"),
        (math.inf, "inf"),
    ],
)
def test_durations_have_the_units_that_matter(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_gain_has_its_spread_where_there_is_one() -> None:
    several = {"median": 0.123, "least": -0.0101, "most": 0.13}
    assert gain_words(several) == "+12.3 % (-1.0 to +13.0 %)"
    assert gain_words(dict.fromkeys(several, 0.123)) == "+12.3 %"
    assert gain_words(None) == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0957, "0.0957"),
        (3.734, "3.73"),
        (999.6, "1.00k"),
        (12_345, "12.3k"),
        (8e9, "8.00G"),
    ],
)
def test_rounded_keeps_three_digits(value: float, text: str) -> None:
    assert rounded(value) == text


@given(st.floats(1e-6, 1e15))
def test_rounded_is_within_half_a_percent(value: float) -> None:
    text = rounded(value)
    scale = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}.get(text[-1], 1.0)
    assert float(text.rstrip("kMGT")) * scale == pytest.approx(value, rel=0.0051)


def test_counts_shares_and_sizes() -> None:
    assert count(1_000_000) == "1,000,000"
    assert share(0.8642) == "86.4 %"
    assert [gain(value) for value in (0.054, 0.0, -0.081)] == ["+5.4 %", "+0.0 %", "-8.1 %"]
    assert binary_size(80 * 2**30) == "80.0 GiB"


def test_families_are_what_ids_say_before_a_number() -> None:
    ids = pa.chunked_array([["chat-1", "chat-02", "summary/7"], ["chat-3"]])
    names, group = families(ids)
    assert [names[index] for index in group] == ["chat", "chat", "summary", "chat"]


def test_families_fall_back_to_the_first_word() -> None:
    ids = pa.chunked_array([[f"exam-{chr(97 + i)}-{i}" for i in range(20)] + ["chat-1"]])
    names, group = families(ids)
    assert [names[index] for index in group] == ["exam"] * 20 + ["chat"]


@pytest.mark.parametrize("ids", [["1", "2"], [chr(97 + i) * 3 for i in range(20)]])
def test_ids_that_say_nothing_make_no_families(ids: list[str]) -> None:
    assert families(pa.chunked_array([ids]))[0] == []


def test_breakdown_adds_up_and_leaves_out_empty_groups() -> None:
    columns = {
        "answer": np.array([0, 0, 1], dtype=np.int32),  # the last is of the request before
        "prompt_tokens": np.array([10, 30, 60], dtype=np.int32),
        "cached_tokens": np.array([0, 20, 30], dtype=np.int32),
        "output_tokens_mean": np.array([1.0, 2.0, 6.0], dtype=np.float32),
        "density": np.array([1.0, 5.0, 9.0]),
        "start_s": np.array([0.0, 1.0, 2.0]),
        "finish_s": np.array([9.0, 4.0, 5.0]),
    }
    first, third = breakdown(["a", "b", "c"], np.array([0, 2, 2]), columns)
    assert first["name"] == "a"
    assert first["requests"] == 1
    assert third == {
        "name": "c",
        "requests": 1,
        "prompt_tokens_mean": 45.0,
        "output_tokens_mean": 4.0,
        "cached_share": 50 / 90,
        "density_median": 7.0,
        "first_start_s": 1.0,
        "last_finish_s": 5.0,
    }


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.floats(0.01, 5.0), st.floats(0.0, 100.0)), min_size=1, max_size=30),
    st.integers(1, 50),
)
def test_resampling_keeps_the_integral(points: list[tuple[float, float]], width: int) -> None:
    lengths, values = np.array(points).T
    end_s = np.cumsum(lengths)
    cells = resample(end_s, values, width)
    assert cells.sum() * end_s[-1] / width == pytest.approx((lengths * values).sum())
    assert cells.min() >= values.min() - 1e-9
    assert cells.max() <= values.max() + 1e-9


def test_bars_show_a_trace_and_a_full_block() -> None:
    assert bars(np.array([0.0, 0.001, 0.5, 1.0, 2.0]), 1.0) == " ▁▄██"
    assert bars(np.array([0.0, 0.0]), 0.0) == "  "


def test_timeline_has_a_row_each_and_the_length_of_the_run() -> None:
    lines = drawn(Timeline([1.0, 4.0], [Row("load", [1.0, 0.0], 1.0, "of all")], width=12))
    assert lines[0].rstrip() == "load ███          of all"
    assert lines[1].split() == ["0", "s", "4.00", "s"]


def plan(throughput: float) -> dict[str, Any]:
    """What `comparison` reads of a plan."""
    return {
        "predicted": {
            "makespan_s": 100 / throughput,
            "throughput_tokens_per_s": throughput,
            "preemptions": 0,
        },
        "bound_ratio": 0.5,
        "prefix_sharing": {"planned": 0.25},
        "plan_wall_s": 1.0,
    }


def test_comparison_gives_the_gain_over_the_usual_orders() -> None:
    lines = drawn(comparison({"fcfs": plan(1.0), "dfs": plan(1.25), "blendserve": plan(1.5)}))
    assert "over fcfs" in lines[0]
    assert "over dfs" in lines[0]
    assert "+50.0 %" in lines[-1]
    assert "+20.0 %" in lines[-1]


def test_comparison_on_a_terminal_of_80_columns() -> None:
    rates = {"fcfs": 7e-4, "random": 6e-4, "dfs": 7.2e-4, "blendserve": 8e-4, "blend": 9e-4}
    policies = {name: plan(rate) for name, rate in rates.items()}
    lines = drawn(comparison(policies, ["so it is"]), 80)
    assert max(map(len, lines)) <= 80
    assert lines[1].split()[:3] == ["policy", "makespan", "tokens/s"]
    for name, rate in rates.items():
        (row,) = (line for line in lines if line.startswith(name + " "))
        assert duration(100 / rate) in row
        assert row.count(" %") == {"fcfs": 3, "dfs": 3}.get(name, 4)
    assert "planned" not in " ".join(lines)
    assert "planned in" in " ".join(drawn(comparison(policies), 120))


NUMBERS = st.text("0123456789.,", min_size=1, max_size=9)


@given(
    st.lists(st.tuples(st.text("abc-", min_size=1, max_size=60), *[NUMBERS] * 7), min_size=1),
    st.integers(80, 130),
)
def test_tables_fit_and_no_number_is_cut(rows: list[tuple[str, ...]], width: int) -> None:
    columns = [
        Column("name", text=True),
        *(Column(f"heading {index}") for index in range(5)),
        Column("less needed", spare=1),
        Column("least needed", spare=2),
    ]
    lines = drawn(Columns(columns, rows), width)
    assert max(map(len, lines)) <= width
    body = lines[1 + next(index for index, line in enumerate(lines) if "──" in line) :]
    found = [line.split() for line in body]
    starts = [cells for cells in found if len(cells) > 1]
    assert len(starts) == len(rows)
    for row, cells in zip(rows, starts, strict=True):
        assert cells[1:] == [*row[1 : len(cells)]]
        assert len(cells) >= 6
    assert "".join(cells[0] for cells in found) == "".join(row[0] for row in rows)


def test_the_time_line_shrinks_to_its_terminal() -> None:
    rows = [Row("compute side", [1.0, 0.5], 1.0, "of the KV cache")]
    wide, narrow = (drawn(Timeline([1.0, 4.0], rows), width) for width in (160, 80))
    assert len(wide[0].rstrip()) == len("compute side") + 1 + 72 + 1 + len("of the KV cache")
    assert len(narrow[0].rstrip()) == 80
    assert narrow[0].rstrip().endswith("of the KV cache")


@pytest.mark.parametrize(
    ("policy", "order", "bursts", "words"),
    [
        ("blend", "dfs", 1, "blend; nothing beats depth-first order here"),
        ("blend", "dfs", 4, "blend; depth-first order in bursts"),
        ("blend", "random", 1, "blend; nothing beats random order here"),
        ("blend", "two queues", 1, "blend"),
        ("blend", "two queues", 16, "blend, in bursts"),
        ("dfs", "dfs", 1, "dfs"),
    ],
)
def test_a_headline_says_what_blend_comes_down_to(
    policy: str, order: str, bursts: int, words: str
) -> None:
    told = plan(1.0) | {
        "requests": 1,
        "policy": policy,
        "order": order,
        "burst_steps": bursts,
        "gpu": "l4",
        "tp": 1,
        "replicas": 1,
        "model": "phi-4",
        "cost_model": "datasheet",
        "overlap": 1,
        "density": 1.0,
        "bound_s": 50.0,
        "replan": None,
    }
    told["prefix_sharing"]["optimal"] = 0.5
    told["predicted"]["steps"] = 10
    assert headline_rows(told)["policy"] == words

"""Pages of mixtures: what is kept of the results, and what is said about them."""

from pathlib import Path
from typing import Any

import pytest
from benchmarks.mixture_page import PARTS, headline, read_results, write_results
from benchmarks.mixture_runs import PLAIN
from benchmarks.mixture_tables import tables

from blendplan.errors import BlendplanError

Row = dict[str, Any]

TIMES = {
    "bound_s": 90.123456789,
    "compute_s": 60.0,
    "memory_s": 35.0,
    "steps": 30,
    "prefill_tokens": 900,
    "least_prefill_tokens": 500,
    "token_s": 0.01,
    "bound_compute_s": 50.0,
    "bound_memory_s": 32.0,
    "bound_steps": 20,
    "tail_s": 10.0,
}
LENGTHS = {
    "total": 0.9,
    "under_p50": 0.4,
    "under_p90": 0.8,
    "mean_absolute": 5.0,
    "mean_tokens": 10.0,
    "mean_absolute_of_median": 3.0,
}


def row(mixture: int, knowledge: str, policy: str, makespan_s: float, **more: Any) -> Row:
    made: Row = {"mixture": mixture, "half": "report", "label": f"{mixture} of everything"}
    made |= {"overlap": 1.0, "thin": 1, "effort": 1, "seed": 0, "requests": 1_000 * mixture}
    made |= {"knowledge": knowledge, "policy": policy, "makespan_s": makespan_s}
    made |= {"share": 90.123456789 / makespan_s, "kv_use": 0.5, "density": 1.0, "wall_s": 3.0}
    made |= TIMES | {"parameters": {"boundary": 1.0}}
    return made | ({} if knowledge == "any" else {"lengths": LENGTHS}) | more


PLAIN_ROWS = [
    row(number, "any", name, makespan_s)
    for number in (1, 3)
    for name, makespan_s in zip(PLAIN, (120.0, 110.0, 100.0), strict=True)
]
BLEND = [row(1, "known", "blend", 95.0), row(3, "known", "blend", 96.0)]
SAMPLED = [row(1, "sample", "blend", 98.0), row(3, "sample", "blend", 125.0)]
FIXED = [row(1, "sample-fixed", "blend", 99.0)]
ROWS = [*PLAIN_ROWS, *BLEND, *SAMPLED, *FIXED, row(1, "known", "blendserve", 97.0)]


def kept(rows: list[Row], folder: Path) -> list[Row]:
    write_results(rows, folder / "mixtures.jsonl")
    return read_results(folder)


def test_all_tables_can_be_made_of_what_is_kept(tmp_path: Path) -> None:
    found = kept(ROWS, tmp_path)
    assert tables(found, each=True) == tables(ROWS, each=True)
    assert "parameters" not in found[-1] and "wall_s" not in found[-1]
    assert kept(ROWS[::-1], tmp_path) == found


def test_the_last_of_two_rows_of_one_run_is_kept(tmp_path: Path) -> None:
    found = kept([*ROWS, row(1, "known", "blend", 91.0)], tmp_path)
    again = [one for one in found if (one["knowledge"], one["policy"]) == ("known", "blend")]
    assert [one["makespan_s"] for one in again] == [91.0, 96.0]


def test_only_the_reported_half_is_shown_where_there_are_both(tmp_path: Path) -> None:
    tuned = row(2, "known", "blend", 50.0, half="tune")
    assert {one["mixture"] for one in kept([*ROWS, tuned], tmp_path)} == {1, 3}
    assert {one["mixture"] for one in kept([tuned], tmp_path)} == {2}
    with pytest.raises(BlendplanError, match=r"halves \['given', 'tune'\]"):
        kept([tuned, row(100, "known", "blend", 50.0, half="given")], tmp_path)
    with pytest.raises(BlendplanError, match=r"halves \[\]"):
        kept([], tmp_path)


def test_the_headline_says_where_blend_loses(tmp_path: Path) -> None:
    said = headline(kept(ROWS, tmp_path))
    assert said.startswith("Simulated: 2 mixtures of the half that no setting was chosen on, ")
    assert "1,000 to 3,000 requests each" in said
    # 100 / 95 and 100 / 96; 100 / 98 and 100 / 125.
    assert "+4.7 % (q = 1) with known lengths and -9.0 % (q = 1) with a 1 % sample." in said
    assert "in 0 of 2 runs with known lengths; in 1 of 2 runs with a 1 % sample, " in said
    assert "at worst 25.0 % slower." in said
    assert "|  | **`blend`** | **94.4 %** | **82.0 %** |" in said


def test_what_was_not_run_is_left_out(tmp_path: Path) -> None:
    some = kept([*PLAIN_ROWS, *SAMPLED], tmp_path)
    assert "| overlap of compute and memory | order | 1 % sample |" in headline(some)
    assert "blendserve" not in headline(some)
    assert PARTS["blendserve"](some) == "Not run."
    assert PARTS["known"](some) == "Not run."
    for part in PARTS.values():
        assert part(some)
    assert headline(kept(PLAIN_ROWS, tmp_path)).startswith("Simulated: ")


def test_lines_name_what_is_known_in_words(tmp_path: Path) -> None:
    found = kept(ROWS, tmp_path)
    lines = PARTS["shares"](found).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        "| known",
        "| 1 % sample",
        "| 1 % sample, `--no-replan`",
    ]
    each = PARTS["each"](found).splitlines()
    assert each[0] == "Shares of the bound in percent, at q = 1:"
    assert each[4].startswith("| 1 | 1 of everything | 1.00 | 75.1 | 81.9 | 90.1 | 92.9 | 94.9 |")


def test_shares_are_compared_on_the_same_mixtures(tmp_path: Path) -> None:
    """Depth-first order has run on both mixtures, `blend` with a sample on one of them."""
    slow = row(3, "any", "dfs", 1000.0)
    said = headline(kept([*PLAIN_ROWS, slow, *BLEND, SAMPLED[0]], tmp_path))
    assert "| depth-first | 49.6 % | 90.1 % |" in said

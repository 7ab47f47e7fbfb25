"""The journal: whole lines survive whatever ends the process, and only into their own run."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blendplan.cost.reach import ALL_TOKENS
from blendplan.errors import BlendplanError
from blendplan.replaying.journal import Journal, Order
from blendplan.replaying.logs import open_log, step_log_of

RUN = {"plan": "abc", "engine": "sim", "model": "tiny"}
ORDERS: list[Order] = ["input", "finish"]


def line(row: int) -> bytes:
    return json.dumps({"row": row, "text": "é" * row}, ensure_ascii=False).encode()


Lines = list[tuple[int, int, dict[str, object]]]


def row_of(line: Mapping[str, Any]) -> int:
    return int(line.get("row", -1))


def rows(lines: Lines) -> list[int]:
    return [row for _, row, _ in lines]


def resumed(output: Path, order: Order = "input") -> Lines:
    with Journal(output, order, RUN) as journal:
        return list(journal.resume(row_of))


@pytest.mark.parametrize("order", ORDERS)
def test_what_was_appended_is_there_on_resume(tmp_path: Path, order: Order) -> None:
    output = tmp_path / "results.jsonl"
    with Journal(output, order, RUN) as journal:
        journal.begin()
        offsets = journal.append([line(3), line(1)]) + journal.append([line(2)])

    with Journal(output, order, RUN) as journal:
        found = list(journal.resume(row_of))
        assert rows(found) == [3, 1, 2]
        assert [offset for offset, _, _ in found] == offsets
        offsets += journal.append([line(0)])
        journal.complete([offsets[3], offsets[1], offsets[2], offsets[0]])

    expected = [0, 1, 2, 3] if order == "input" else [3, 1, 2, 0]
    assert [json.loads(text)["row"] for text in output.read_text().splitlines()] == expected
    assert [path.name for path in tmp_path.iterdir()] == ["results.jsonl"]


@settings(max_examples=100)
@given(data=st.data(), count=st.integers(0, 6), order=st.sampled_from(ORDERS))
def test_a_file_cut_anywhere_keeps_its_whole_lines(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, count: int, order: Order
) -> None:
    output = tmp_path_factory.mktemp("cut") / "results.jsonl"
    with Journal(output, order, RUN) as journal:
        journal.begin()
        offsets = journal.append([line(row) for row in range(count)])
    content = journal.lines_path.read_bytes()
    first = offsets[0] if offsets else len(content)
    cut = data.draw(st.integers(first, len(content)))
    # A power failure may leave zeros where the end of the file was not written.
    zeros = data.draw(st.integers(0, 5))
    journal.lines_path.write_bytes(content[:cut] + b"\0" * zeros)

    whole = content[first:cut].count(b"\n")
    if not zeros and content[cut : cut + 1] == b"\n":
        whole += 1  # but for its line end, which it gets
    with Journal(output, order, RUN) as journal:
        assert rows(list(journal.resume(row_of))) == list(range(whole))
        journal.append([line(99)])
    assert rows(resumed(output, order)) == [*range(whole), 99]


@pytest.mark.parametrize("order", ORDERS)
def test_rewriting_keeps_the_chosen_lines(tmp_path: Path, order: Order) -> None:
    output = tmp_path / "results.jsonl"
    with Journal(output, order, RUN) as journal:
        journal.begin()
        offsets = journal.append([line(row) for row in range(4)])
        kept = journal.rewrite([offsets[0], offsets[2]])
        kept += journal.append([line(9)])
    found = resumed(output, order)
    assert rows(found) == [0, 2, 9]
    assert [offset for offset, _, _ in found] == kept


@pytest.mark.parametrize("name", sorted(RUN))
def test_the_journal_of_another_run_is_refused(tmp_path: Path, name: str) -> None:
    output = tmp_path / "results.jsonl"
    with Journal(output, "input", RUN) as journal:
        journal.begin()
    other = Journal(output, "input", {**RUN, name: "other"})
    with pytest.raises(BlendplanError, match=f'its {name} is "{RUN[name]}", this one.s is "other"'):
        list(other.resume(row_of))


def test_another_order_is_another_run(tmp_path: Path) -> None:
    output = tmp_path / "results.jsonl"
    with Journal(output, "input", RUN) as journal:
        journal.begin()
    with pytest.raises(BlendplanError, match='its order is "input"'):
        resumed(output, "finish")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    output = tmp_path / "results.jsonl"
    with Journal(output, "input", RUN) as journal:
        journal.begin()
    with pytest.raises(BlendplanError, match="--resume"):
        Journal(output, "input", RUN).begin()
    with Journal(output, "input", RUN) as journal:
        assert list(journal.resume(row_of)) == []
        journal.complete([])
    with pytest.raises(BlendplanError, match="never overwritten"):
        Journal(output, "input", RUN).begin()


def test_two_replays_do_not_share_a_journal(tmp_path: Path) -> None:
    output = tmp_path / "results.jsonl"
    with Journal(output, "input", RUN) as first:
        first.begin()
        with pytest.raises(BlendplanError, match="in use"):
            resumed(output)
    assert resumed(output) == []


@pytest.mark.parametrize("content", [b"", b"no json", b"[]\n", b'{"blendplan_journal": 99}\n'])
def test_a_foreign_file_is_no_journal(tmp_path: Path, content: bytes) -> None:
    output = tmp_path / "results.jsonl"
    output.with_name("results.jsonl.journal").write_bytes(content)
    with pytest.raises(BlendplanError, match="is no journal"):
        resumed(output)


DAMAGED = [b"no json", b"[]", b"\0\0\0", b'{"row": 1', b"[" * 100_000, b"", b"\xff"]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_line_in_the_middle_is_named_and_the_rest_is_kept(
    tmp_path: Path, order: Order, damage: bytes
) -> None:
    output = tmp_path / "results.jsonl"
    with Journal(output, order, RUN) as journal:
        journal.begin()
        journal.append([line(row) for row in range(4)])
    content = journal.lines_path.read_bytes()
    altered = content.replace(line(1) + b"\n", damage + b"\n")
    journal.lines_path.write_bytes(altered)
    with Journal(output, order, RUN) as journal:
        found = list(journal.resume(row_of))
        assert rows(found) == [0, 2, 3]
        assert journal.damaged == [3 if order == "input" else 2]
        assert journal.lines_path.read_bytes() == altered
        journal.rewrite([offset for offset, _, _ in found])
        beside = journal.lines_path.with_name(journal.lines_path.name + ".damaged")
        assert beside.read_bytes() == damage + b"\n"
    assert rows(resumed(output, order)) == [0, 2, 3]


@pytest.mark.parametrize("order", ORDERS)
def test_a_line_of_another_request_is_damage_where_others_are_ours(
    tmp_path: Path, order: Order
) -> None:
    output = tmp_path / "results.jsonl"
    with Journal(output, order, RUN) as journal:
        journal.begin()
        journal.append([line(0), b'{"row": -7, "id": 1e400}', line(2)])
    with Journal(output, order, RUN) as journal:
        assert rows(list(journal.resume(row_of))) == [0, 2]
        assert journal.damaged == [3 if order == "input" else 2]


@pytest.mark.parametrize("order", ORDERS)
def test_lines_of_other_requests_only_are_refused_and_left_alone(
    tmp_path: Path, order: Order
) -> None:
    output = tmp_path / "results.jsonl"
    with Journal(output, order, RUN) as journal:
        journal.begin()
        journal.append([b'{"row": -1}', b'{"row": -2}'])
    content = journal.lines_path.read_bytes()
    with pytest.raises(BlendplanError, match=r"answers to other requests .* in line"):
        resumed(output, order)
    assert journal.lines_path.read_bytes() == content


@pytest.mark.parametrize("order", ORDERS)
def test_a_whole_last_line_without_its_line_end_is_kept(tmp_path: Path, order: Order) -> None:
    output = tmp_path / "results.jsonl"
    with Journal(output, order, RUN) as journal:
        journal.begin()
        journal.append([line(0), line(1)])
    journal.lines_path.write_bytes(journal.lines_path.read_bytes()[:-1])
    with Journal(output, order, RUN) as journal:
        assert rows(list(journal.resume(row_of))) == [0, 1]
        journal.append([line(2)])
    assert rows(resumed(output, order)) == [0, 1, 2]


def test_temporary_files_are_not_written_through_links(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_text("precious")
    output = tmp_path / "results.jsonl"
    for name in ("results.jsonl.journal.partial", "results.jsonl.partial"):
        (tmp_path / name).symlink_to(theirs)
    with Journal(output, "input", RUN) as journal:
        journal.begin()
        journal.complete(journal.append([line(1)]))
    assert theirs.read_text() == "precious"
    assert output.read_bytes() == line(1) + b"\n"


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", ["results.jsonl", "results.jsonl.journal"])
@pytest.mark.parametrize("exists", [True, False])
def test_results_and_journal_are_not_written_through_links(
    tmp_path: Path, order: Order, name: str, exists: bool
) -> None:
    theirs = tmp_path / "theirs"
    if exists:
        theirs.write_text("precious\n")
    output = tmp_path / "results.jsonl"
    (tmp_path / name).symlink_to(theirs)
    with pytest.raises(BlendplanError, match=f"{name} is a symbolic link"):
        Journal(output, order, RUN).begin()
    assert theirs.exists() == exists

    (tmp_path / name).unlink()
    with Journal(output, order, RUN) as journal:
        journal.begin()
        journal.append([line(0)])
    if (tmp_path / name).exists():  # which somebody now replaces by a link to what looks like it
        (tmp_path / name).rename(theirs)
        (tmp_path / name).symlink_to(theirs)
        content = theirs.read_bytes()
        with pytest.raises(BlendplanError, match=f"{name} is a symbolic link"):
            resumed(output, order)
        assert theirs.read_bytes() == content


def test_damaged_lines_are_not_put_away_through_a_link(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_text("precious")
    output = tmp_path / "results.jsonl"
    with Journal(output, "finish", RUN) as journal:
        journal.begin()
        journal.append([line(0), b"damaged", line(2)])
    (tmp_path / "results.jsonl.damaged").symlink_to(theirs)
    with Journal(output, "finish", RUN) as journal:
        kept = [offset for offset, _, _ in journal.resume(row_of)]
        with pytest.raises(BlendplanError, match=r"damaged is a symbolic link"):
            journal.rewrite(kept)
    assert theirs.read_text() == "precious"
    assert output.read_bytes().count(b"\n") == 3


def test_a_pipe_is_no_journal(tmp_path: Path) -> None:
    output = tmp_path / "results.jsonl"
    os.mkfifo(tmp_path / "results.jsonl.journal")
    with pytest.raises(BlendplanError, match="is no regular file"):
        resumed(output)


def test_logs_are_not_written_through_links(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_text("precious")
    (tmp_path / "steps.parquet").symlink_to(theirs)
    with (
        pytest.raises(BlendplanError, match="is a symbolic link"),
        open_log(tmp_path / "steps.parquet", step_log_of(ALL_TOKENS)),
    ):
        pass
    assert theirs.read_text() == "precious"

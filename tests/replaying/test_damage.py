"""Journals and results that something else has altered: nothing but the altered line is lost."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from blendplan.planfile.plan import Plan
from blendplan.replaying.journal import Order
from blendplan.replaying.run import replay
from blendplan.replaying.tally import Tally
from tests.replaying.replay_jobs import ids_of, lines_of, small_plan, write_requests_file

REQUESTS, DONE = 20, 8
ORDERS: list[Order] = ["input", "finish"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    job = write_requests_file(tmp_path_factory.mktemp("job") / "job.jsonl", REQUESTS)
    return small_plan(job, policy="dfs")


def interrupted(made: Plan, output: Path, order: Order) -> Path:
    """A run of which about `DONE` requests have their line; the file with the lines."""

    def interrupt(tally: Tally) -> None:
        if tally.finished >= DONE:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replay(made, output=output, order=order, progress=interrupt)
    return output if order == "finish" else output.with_name(output.name + ".journal")


def altered(line: bytes, **fields: object) -> bytes:
    return json.dumps({**json.loads(line), **fields}).encode()


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda line: line[:-9],
    "another row": lambda line: altered(line, id="batch_req_999999"),
    "absurd row": lambda line: altered(line, id="batch_req_" + "9" * 30_000),
    "endless row": lambda line: altered(line, id="batch_req_" + "9" * 18),
    "negative row": lambda line: altered(line, id="batch_req_-1"),
    "another id": lambda line: altered(line, custom_id="somebody's"),
    "endless number as id": lambda line: line.replace(b'id":"b', b'id":' + b"9" * 9999 + b',"x":"'),
    "id of no kind": lambda line: altered(line, custom_id=[[["a"]]]),
    "number": lambda line: b"7",
}  # fmt: skip


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("damage", DAMAGE)
def test_an_altered_line_is_named_and_its_request_runs_again(
    made: Plan, tmp_path: Path, order: Order, damage: str
) -> None:
    output = tmp_path / "results.jsonl"
    file = interrupted(made, output, order)
    lines = file.read_bytes().splitlines()
    done = len(lines) - (order == "input")
    place = len(lines) - 3
    lines[place] = DAMAGE[damage](lines[place])
    file.write_bytes(b"\n".join([*lines, b""]))
    told: list[str] = []
    replayed = replay(made, output=output, order=order, resume=True, remark=told.append)
    assert replayed.tally.already_done == done - 1
    assert [line for line in told if f"damaged in line {place + 1}" in line]
    assert Counter(line["custom_id"] for line in lines_of(output)) == Counter(ids_of(made))
    kept = file.with_name(file.name + ".damaged")
    assert kept.read_bytes() == lines[place] + b"\n"
    assert {path.name for path in tmp_path.iterdir()} == {output.name, kept.name}


@pytest.mark.parametrize("order", ORDERS)
def test_a_line_that_stands_there_twice_is_there_once(
    made: Plan, tmp_path: Path, order: Order
) -> None:
    output = tmp_path / "results.jsonl"
    file = interrupted(made, output, order)
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines, lines[-1], lines[-2]]))
    replayed = replay(made, output=output, order=order, resume=True)
    assert replayed.tally.already_done == len(lines) - (order == "input")
    assert Counter(line["custom_id"] for line in lines_of(output)) == Counter(ids_of(made))


def test_answers_in_a_journal_are_taken_over_by_another_run(made: Plan, tmp_path: Path) -> None:
    journal = interrupted(made, tmp_path / "first.jsonl", "input")
    done = journal.read_bytes().count(b"\n") - 1
    output = tmp_path / "second.jsonl"
    replayed = replay(made, output=output, already=journal)
    assert (replayed.tally.already_done, replayed.tally.finished) == (done, REQUESTS - done)
    assert [line["custom_id"] for line in lines_of(output)] == ids_of(made)

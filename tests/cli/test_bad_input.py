"""Bad input: one clear line, the right exit code, nothing half-written."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest

from tests.cli.cli_runs import error_line, run, write_job

GOOD = '{"id": "a", "prompt_token_ids": [1, 2, 3], "output_tokens": 4}'


def _lines(*lines: str) -> bytes:
    return "\n".join(lines).encode() + b"\n"


def _request(**fields: object) -> str:
    return json.dumps({"prompt_token_ids": [1, 2, 3], "output_tokens": 4} | fields)


# What is in the request file, and what the line must say; a line number where there is one.
REQUEST_FILES: dict[str, tuple[bytes, list[str]]] = {
    "empty": (b"", ["empty"]),
    "only blank lines": (b"\n\n\n", ["request"]),
    "binary": (bytes(range(256)) * 20, []),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(500), []),
    "truncated gzip": (gzip.compress(_lines(*[GOOD] * 500), mtime=0)[:-20], []),
    "not really gzip": (b"\x1f\x8b" + b"x" * 200, []),
    "truncated Parquet": (b"PAR1" + bytes(300), []),
    "not UTF-8": (_lines(GOOD).replace(b'"a"', b'"\xff\xfe"'), ["line 1", "UTF-8"]),
    "UTF-16": (GOOD.encode("utf-16"), ["UTF-16"]),
    "not JSON": (_lines(GOOD, "{prompt: x}"), ["line 2", "JSON"]),
    "truncated line": (_lines(GOOD) + b'{"id": "b", "prompt": "hel', ["line 2", "JSON"]),
    "not an object": (_lines(GOOD, "[1, 2]"), ["line 2", "object"]),
    "without prompt": (_lines(GOOD, '{"id": "b"}'), ["line 2", "prompt"]),
    "empty prompt": (_lines(GOOD, '{"prompt": ""}'), ["line 2", "empty"]),
    "empty token ids": (_lines(_request(prompt_token_ids=[])), ["line 1", "empty"]),
    "no messages": (_lines('{"messages": []}'), ["line 1", "messages"]),
    "negative max_tokens": (_lines(_request(max_tokens=-5)), ["line 1", "max_tokens", "-5"]),
    "absurd max_tokens": (_lines(_request(max_tokens=10**15)), ["line 1", "max_tokens"]),
    "negative output": (_lines(_request(output_tokens=-1)), ["line 1", "output_tokens", "-1"]),
    "output as text": (_lines(_request(output_tokens="many")), ["line 1", "output_tokens"]),
    "infinite output": (_lines('{"prompt": "x", "output_tokens": 1e999}'), ["line 1"]),
    "duplicate ids": (_lines(GOOD, _request(id="b"), GOOD), ["line 3", '"a"', "line 1"]),
    "negative token id": (_lines(_request(prompt_token_ids=[1, -2])), ["line 1", "-2"]),
    "huge token id": (_lines(_request(prompt_token_ids=[2**40])), ["line 1", str(2**40)]),
    "fractional token id": (_lines(_request(prompt_token_ids=[1.5])), ["line 1", "1.5"]),
    "token ids as text": (_lines(_request(prompt_token_ids="abc")), ["line 1"]),
    "longer than the context": (_lines(_request(output_tokens=900_000)), ["131,072", "900,000"]),
    "deep nesting": (_lines("[" * 100_000), ["line 1"]),
}  # fmt: skip


@pytest.mark.parametrize("name", REQUEST_FILES)
def test_bad_request_files_are_one_line(name: str, tmp_path: Path) -> None:
    content, parts = REQUEST_FILES[name]
    path = tmp_path / "requests.jsonl"
    path.write_bytes(content)
    output = tmp_path / "plan.arrow"
    result = run("plan", path, "--gpu", "a100-80g", "-o", output)
    assert result.exit_code == 1
    line = error_line(result)
    for part in parts:
        assert part.lower() in line.lower()
    assert "requests.jsonl" in line or "KV cache" in line
    assert len(line) < 400
    assert [entry.name for entry in tmp_path.iterdir()] == ["requests.jsonl"]


# Arguments with {place}s, and what the line must say. The job and its plan are good.
COMMAND_LINES: dict[str, tuple[str, list[str]]] = {
    "missing requests": ("plan {dir}/none --gpu h200 -o {dir}/p", ["none", "does not exist"]),
    "a folder of requests": ("plan {dir} --gpu h200 -o {dir}/p", ["folder"]),
    "model too large": ("plan {job} --gpu l4 --model llama-3.1-70b -o {dir}/p", ["does not fit"]),
    "tp that does not divide": ("plan {job} --gpu h200 --tp 3 -o {dir}/p", ["3", "32 heads"]),
    "no such GPU profile": ("plan {job} --gpu {dir}/x.toml -o {dir}/p", ["x.toml"]),
    "model folder is empty": ("plan {job} --gpu h200 --model {dir} -o {dir}/p", ["config.json"]),
    "no such results": ("plan {job} --gpu h200 --lengths sample:{dir}/r -o {dir}/p", ["r"]),
    "KV cache under a block": ("plan {job} --gpu h200 --kv-tokens 8 -o {dir}/p", ["8"]),
    "output is a folder": ("plan {job} --gpu h200 -o {dir}", ["folder"]),
    "output in no folder": ("plan {job} --gpu h200 -o {dir}/no/p", ["no", "does not exist"]),
    "output below a file": ("plan {job} --gpu h200 -o {job}/p", ["is not a folder"]),
    "output is the input": ("plan {job} --gpu h200 -o {job}", ["it is an input"]),
    "rejects are the output": (
        "plan {job} --gpu h200 --on-error skip --rejects {dir}/p -o {dir}/p", ["another output"]
    ),
    "nothing to sample": ("plan {job} --gpu h200 --sample-out {dir}/s.jsonl", ["to sample"]),
    "sample of another kind": ("plan {unknown} --gpu h200 --sample-out {dir}/s.txt", [".jsonl"]),
    "missing plan": ("inspect {dir}/none", ["none"]),
    "requests as a plan": ("inspect {job}", ["not a plan"]),
    "truncated plan": ("inspect {cut}", ["damaged"]),
    "altered plan": ("verify {altered}", ["altered"]),
    "foreign Arrow file": ("verify {foreign}", ["not a plan"]),
    "plan to replay is missing": ("replay {dir}/none", ["none"]),
    "results over the plan": ("replay {plan} -o {plan}", ["it is an input"]),
    "compare without requests": ("compare {dir}/none --gpu h200", ["does not exist"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("good")
    found = {
        name: folder / name for name in ("job", "unknown", "plan", "cut", "altered", "foreign")
    }
    write_job(found["job"], requests=30)
    write_job(found["unknown"], requests=30, known_lengths=False)
    made = run("plan", found["job"], "--gpu", "a100-80g", "-o", found["plan"])
    assert made.exit_code == 0, made.stderr
    plan = found["plan"].read_bytes()
    found["cut"].write_bytes(plan[: len(plan) // 2])
    table = pa.ipc.open_file(found["plan"]).read_all()
    reversed_rows = table.take(list(range(29, -1, -1)))
    _write_arrow(found["altered"], reversed_rows)
    _write_arrow(found["foreign"], pa.table({"x": [1, 2]}))
    return found


def _write_arrow(path: Path, table: pa.Table) -> None:
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


@pytest.mark.parametrize("name", COMMAND_LINES)
def test_bad_command_lines_are_one_line(name: str, places: dict[str, Path], tmp_path: Path) -> None:
    words, parts = COMMAND_LINES[name]
    before = {path: path.read_bytes() for path in places.values()}
    result = run(*words.format(dir=tmp_path, **places).split())
    assert result.exit_code == 1
    line = error_line(result)
    for part in parts:
        assert part in line
    assert list(tmp_path.iterdir()) == []
    assert {path: path.read_bytes() for path in places.values()} == before


@pytest.mark.parametrize("policy", ["fcfs", "blendserve"])
def test_one_request_is_a_job(policy: str, tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    path.write_text(GOOD)
    output = tmp_path / "plan.arrow"
    assert run("plan", path, "--gpu", "h200", "--policy", policy, "-o", output).exit_code == 0
    for command in ("inspect", "verify"):
        assert run(command, output).exit_code == 0


def test_a_failed_plan_leaves_the_earlier_one(
    places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "plan.arrow"
    output.write_bytes(b"an earlier plan")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("blendplan.planfile.plan.pa.ipc.new_file", full)
    result = run("plan", places["job"], "--gpu", "h200", "-o", output)
    assert result.exit_code == 1
    assert "the disk is full" in error_line(result)
    assert output.read_bytes() == b"an earlier plan"
    assert [entry.name for entry in tmp_path.iterdir()] == ["plan.arrow"]


# Numbers that a command line may hold; all are wrong usage, found before any file is read.
WRONG_NUMBERS = [
    *[f"plan x --gpu h200 --{name} {value}" for name, value in (
        ("tp", "0"), ("tp", "1e9"), ("replicas", str(2**31)), ("kv-tokens", str(10**30)),
        ("max-num-seqs", str(2**31)), ("max-num-batched-tokens", str(2**31)),
        ("block-size", "nan"), ("gpu-memory-utilization", "nan"), ("preserve-sharing", "nan"),
        ("preserve-sharing", "inf"), ("overlap", "nan"), ("overlap", "0.5"), ("seed", "-1"),
        ("seed", str(2**63)), ("effort", "3"), ("effort", "1.5"),
    )],
    "plan x --gpu h200 --sample-out y --fraction nan",
    "replay x --retries -1",
    "replay x --replica 1000000",
    "calibrate --steps x --tp 1000000 -o y.toml",
]  # fmt: skip


@pytest.mark.parametrize("words", WRONG_NUMBERS)
def test_wrong_numbers_are_wrong_usage(words: str) -> None:
    result = run(*words.split())
    assert result.exit_code == 2
    assert words.split()[-2 if not words.endswith("y.toml") else 3] in error_line(result)


# Options that say nothing without another one: wrong usage, found before any file is read.
ALONE = [
    ("plan x --gpu h200 -o y --chance 0.5", "--chance needs --within TIME"),
    ("plan x --gpu h200 -o y --already z --chance 0.5", "--chance needs --within TIME"),
    ("plan x --gpu h200 -o y --first work", "--first needs --within TIME"),
    ("plan x --gpu h200 -o y --soonest p50", "--soonest needs --tail SHARE"),
    ("plan x --gpu h200 -o y --fraction 0.5", "--fraction needs --sample-out FILE"),
    ("plan x --gpu h200 -o y --rejects z", "--rejects needs --on-error skip"),
    ("plan x --gpu h200 -o y --on-error fail --rejects z", "--rejects needs --on-error skip"),
    ("plan x --gpu h200 -o y --engine-arg a=1", "--engine-arg needs --engine NAME"),
    ("plan x --gpu h200 --sample-out y --dry-run", "leave out --sample-out"),
    ("plan x --gpu h200 --sample-out y --tail 0.1", "leave out --sample-out"),
    ("plan x --gpu h200 --dry-run --on-error skip --rejects z", "--dry-run writes nothing"),
    ("quote x --gpu h200 --chance 0.5", "--chance needs --within TIME"),
    ("quote x --gpu h200 --soonest p99", "--soonest needs --tail SHARE"),
    ("compare x --gpu h200 --rejects z", "--rejects needs --on-error skip"),
    ("run x --gpu h200 --engine sim -o y --replicas-max 2", "--replicas-max needs --ray ADDRESS"),
    ("replay x --order finish", "--order needs -o FILE"),
    ("calibrate --kernels x --gpu h200 --tp 2 -o y.toml", "leave them out with --kernels"),
]


@pytest.mark.parametrize(("words", "said"), ALONE)
def test_options_without_the_other_that_they_need(words: str, said: str) -> None:
    result = run(*words.split())
    assert result.exit_code == 2
    assert said in error_line(result)


def test_hostile_names_are_shown_as_escapes(tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[2Jb\nc.jsonl"
    path.write_text('{"id": "x\\u001b[31m", "prompt": 3}\n')
    for words in (("plan", path, "--gpu", "h200", "-o", tmp_path / "p"), ("inspect", path)):
        result = run(*words)
        assert result.exit_code == 1
        line = error_line(result)
        assert line.isprintable()
        assert "\\x1b" in line
    result = run("plan", "--gpu", "h200", "\x1b[2J", "--\x1b[2Jno", "-o", "x")
    assert result.exit_code == 2
    assert error_line(result).isprintable()


def test_hostile_names_in_answers(tmp_path: Path) -> None:
    job = tmp_path / "job.jsonl"
    lines = [
        {"id": f"{family}\x1b[31m\u202e-{n}", "prompt_token_ids": [n, n + 1], "output_tokens": 5}
        for family in ("red", "turned")
        for n in range(3)
    ]
    job.write_text("".join(json.dumps(line) + "\n" for line in lines))
    plan = tmp_path / "plan\x1b[2J.arrow"
    assert run("plan", job, "--gpu", "h200", "-o", plan).exit_code == 0
    for words in ("inspect", "verify", "replay", "inspect --json"):
        result = run(*words.split(), plan)
        assert result.exit_code == 0
        assert all(line.isprintable() for line in (result.stdout + result.stderr).split("\n"))
    families = json.loads(run("inspect", plan, "--json").stdout)["families"]
    assert any("\x1b[31m\u202e" in row["name"] for row in families)

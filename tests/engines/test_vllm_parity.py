"""A replay answers as vLLM's own batch runner and API server do, whatever is asked."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from blendplan.planning.planner import plan
from blendplan.replaying.run import replay
from blendplan.requests.read import read_requests
from tests.engines.parity.compare import differences
from tests.engines.parity.kind import Kind
from tests.engines.parity.kinds import ENGINES, KV_TOKENS, Served, command_line
from tests.engines.parity.models import write_parts_model, write_plain_model

_ROOT = Path(__file__).parents[2]
_KINDS = [kind for served in ENGINES for kind in served.kinds]
# The engine's process runs the model itself; on a CPU, vLLM starts one more otherwise.
_FEWER_PROCESSES = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}


class Answers(NamedTuple):
    """Lines of both sides by the name of the kind; a kind should have one line here."""

    reference: dict[str, dict[str, Any]]
    here: dict[str, list[dict[str, Any]]]


class _Files(NamedTuple):
    """The files of one engine's run."""

    requests: Path
    reference: Path
    results: Path


@pytest.fixture(scope="module")
def answers(vllm: None, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """vLLM's own servers and replays, on the same files with the same arguments, side by side."""
    folder = tmp_path_factory.mktemp("parity")
    models = {
        "plain": str(write_plain_model(folder / "plain")),
        "parts": str(write_parts_model(folder / "parts")),
    }
    files = [_write_requests(served, folder) for served in ENGINES]
    runs = [
        {
            "flags": ["--model", models[served.model], *command_line(served, models[served.model])],
            "lines": str(each.requests),
            "output": str(each.reference),
        }
        for served, each in zip(ENGINES, files, strict=True)
    ]
    (folder / "runs.json").write_text(json.dumps(runs))
    with pytest.MonkeyPatch.context() as patch, (folder / "reference.log").open("w+") as log:
        for name, value in _FEWER_PROCESSES.items():
            patch.setenv(name, value)
        command = [sys.executable, "-m", "tests.engines.parity.reference"]
        command.append(str(folder / "runs.json"))
        reference = subprocess.Popen(command, cwd=_ROOT, stdout=log, stderr=log)
        try:
            for served, each in zip(ENGINES, files, strict=True):
                _replay(served, models[served.model], each)
            assert reference.wait() == 0, (folder / "reference.log").read_text()[-3000:]
        finally:
            reference.kill()
            reference.wait()
    found = Answers({}, {})
    for each in files:
        found.reference.update({line["custom_id"]: line for line in _lines(each.reference)})
        for line in _lines(each.results):
            found.here.setdefault(line["custom_id"], []).append(line)
    return found


def _write_requests(served: Served, folder: Path) -> _Files:
    requests = folder / f"{served.name}.jsonl"
    requests.write_text("".join(json.dumps(kind.line) + "\n" for kind in served.kinds))
    return _Files(
        requests,
        folder / f"{served.name}.reference.jsonl",
        folder / f"{served.name}.results.jsonl",
    )


def _replay(served: Served, model: str, files: _Files) -> None:
    """Plan and replay the requests of one engine."""
    requests = read_requests(files.requests, model_dir=model, on_error="skip")
    made = plan(
        requests,
        gpu="l4",
        model=model,
        kv_tokens=KV_TOKENS,
        block_size=served.arguments["block_size"],
        max_num_seqs=served.arguments["max_num_seqs"],
        max_num_batched_tokens=served.arguments["max_num_batched_tokens"],
    )
    # Both ways in which a user gives arguments to the engine.
    by_name = served.model == "plain"
    replay(
        made,
        "vllm",
        files.results,
        model=model,
        engine_args=served.arguments if by_name else {},
        flags=[] if by_name else command_line(served, model),
        retries=0,
    )


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("kind", _KINDS, ids=lambda kind: kind.name)
def test_a_replay_answers_as_the_engine_s_own_servers(answers: Answers, kind: Kind) -> None:
    reference = answers.reference[kind.name]
    assert reference["status"] == kind.status, reference["body"]
    lines = answers.here.get(kind.name, [])
    assert len(lines) == 1
    assert differences(kind, reference, lines[0]) == []

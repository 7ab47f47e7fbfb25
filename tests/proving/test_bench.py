"""A proof's bench, on a toy engine: what a run says, and two engines side by side."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from examples.tiny_model import CONFIG

from blendplan.engines.kept import KeptEngine
from blendplan.engines.registry import ENGINES
from blendplan.errors import BlendplanError
from blendplan.proving.bench import Bench, Clock, TimeIsOverError
from blendplan.proving.folder import DONE, ProofFolder
from blendplan.proving.parts import graphs, overlap, runs
from blendplan.proving.prove import prove
from blendplan.proving.settings import ProofSettings, proof_settings
from tests.replaying.replay_faults import TOY, TOY_ROW

LONGEST = 512


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProofSettings:
    monkeypatch.setitem(ENGINES._rows, "toy", TOY_ROW["toy"])
    model = tmp_path / "tiny"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(CONFIG))
    return proof_settings(
        "toy", str(model), kv_tokens=4096, max_model_len=LONGEST, requests=20, repeats=2
    )


@pytest.fixture
def bench(settings: ProofSettings, tmp_path: Path) -> Iterator[Bench]:
    store = ProofFolder(tmp_path / "proof", settings.identity)
    with KeptEngine(TOY) as kept:
        yield Bench(
            settings,
            store,
            kept,
            Clock(5.0),
            remark=lambda line: None,
            progress=lambda what, done, total: None,
        )


def test_a_run_says_what_was_planned_and_what_came(bench: Bench) -> None:
    requests = bench.job("memory", 20)
    run = bench.run(bench.plan(requests, "dfs"), "run", stock=True)
    assert (run["requests"], run["failed"]) == (20, 0)
    assert run["measured_s"] > 0
    assert run["planned_steps"] > 0
    assert not bench.folder.file("run.jsonl").exists()
    assert bench.longest == LONGEST


def test_two_engines_run_side_by_side(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlap, "REQUESTS", 12)
    found = overlap.measure(bench)
    beside = found["side_by_side"]
    assert set(beside["alone_s"]) == set(overlap.KINDS)
    assert beside["kv_tokens_each"] == 2048
    assert beside["together_s"] > 0
    assert found["pdmux"] is None


def test_an_engine_without_graphs_is_told(bench: Bench) -> None:
    with pytest.raises(BlendplanError, match="captured no CUDA graphs"):
        graphs.measure(bench)


def test_each_order_runs_with_its_best_step_size_and_no_run_is_run_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = runs.measure(bench)
    done = list(bench.folder.runs)
    known = sum(order.lengths == "known" for order in runs.ORDERS)
    each = known * len(bench.settings.batched_tokens) + len(runs.ORDERS) * bench.settings.repeats
    assert len(done) == len(runs.WORKLOADS) * each
    for name, workload in found["workloads"].items():
        for title, order in workload["orders"].items():
            policy = order["policy"]
            tried = {
                run["measured_s"]: run["batched_tokens"]
                for run in done
                if run["workload"] == name and run["order"] == policy.replace("fcfs", "input")
                if run["repeat"] == 0
            }
            assert order["batched_tokens"] == tried[min(tried)], title
            assert len(order["measured_s"]) == bench.settings.repeats
    assert runs.measure(bench) == found
    assert bench.folder.runs == done


def test_more_repeats_are_added_and_other_requests_refused(
    settings: ProofSettings, bench: Bench, tmp_path: Path
) -> None:
    store, workloads = bench.folder, runs.measure(bench)
    unpriced = {"held_out": None, "catalogue": None}
    store.put("steps", {"state": DONE, "seconds": 1.0, "values": unpriced})
    store.put("runs", {"state": DONE, "seconds": 1.0, "values": workloads})
    more = replace(settings, repeats=3)
    orders = prove(more, store.path)["parts"]["runs"]["values"]["workloads"]["memory"]["orders"]
    assert {len(order["measured_s"]) for order in orders.values()} == {3}
    other = prove(replace(more, repeats=4, requests=30), store.path)
    assert "the runs so far are of 20 requests, not 30" in other["parts"]["runs"]["why"]


def test_runs_that_are_cut_short_say_what_there_is(bench: Bench) -> None:
    run = bench.run
    done: list[dict[str, Any]] = []

    def counted(*args: Any, **options: Any) -> dict[str, Any]:
        if len(done) == 7:
            bench.clock = Clock(0.0)
        done.append(run(*args, **options))
        return done[-1]

    bench.run = counted  # type: ignore[method-assign]
    with pytest.raises(TimeIsOverError) as cut:
        runs.measure(bench)
    assert cut.value.values is not None
    assert set(cut.value.values["workloads"]) == {"compute"}
    assert len(bench.folder.runs) == len(done) == 8


def test_time_that_is_over_leaves_the_rest(settings: ProofSettings, tmp_path: Path) -> None:
    short = proof_settings(
        "toy", settings.model, kv_tokens=4096, max_model_len=LONGEST, requests=20, minutes=1e-6
    )
    values = prove(short, tmp_path / "short")
    assert values["parts"]["steps"]["state"] == "left"
    assert values["agreement"]["runs"] == 0


def test_a_part_that_fails_says_why_and_is_tried_again(
    settings: ProofSettings, tmp_path: Path
) -> None:
    """The toy does not tell its steps, so no price can be fitted to them."""
    folder = tmp_path / "again"
    for _ in range(2):
        values = prove(settings, folder, parts=["steps"])
        assert values["parts"]["steps"]["state"] == "failed"
        assert "at least 20 are needed" in values["parts"]["steps"]["why"]


def test_a_measured_part_is_not_measured_again(settings: ProofSettings, tmp_path: Path) -> None:
    folder = tmp_path / "done"
    store = ProofFolder(folder, settings.identity)
    store.put("steps", {"state": DONE, "seconds": 1.0, "values": {"fit": 1}})
    with pytest.raises(BlendplanError, match=r"another proof \(seed changed since"):
        ProofFolder(folder, settings.identity | {"seed": 1})
    with pytest.raises(BlendplanError, match=r"another proof \(load changed since"):
        ProofFolder(folder, replace(settings, load="other").identity)
    assert ProofFolder(folder, settings.identity).done("steps") == {"fit": 1}
    damaged = json.loads((folder / "proof.json").read_text()) | {"parts": 3}
    (folder / "proof.json").write_text(json.dumps(damaged))
    with pytest.raises(BlendplanError, match="is no summary of a proof"):
        ProofFolder(folder, settings.identity)


@pytest.mark.parametrize(
    ("name", "said"),
    [("step", "a proof has no part 'step'; did you mean 'steps'"), ("x", "known are kernels")],
)
def test_unknown_parts_are_refused(settings: ProofSettings, name: str, said: str) -> None:
    with pytest.raises(BlendplanError, match=said):
        prove(settings, "nowhere", parts=[name])


def test_other_folders_and_engines_are_refused(settings: ProofSettings, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thing").touch()
    with pytest.raises(BlendplanError, match="holds other files, and no proof"):
        prove(settings, tmp_path / "other")
    with pytest.raises(BlendplanError, match="proves nothing; give a real engine"):
        prove(proof_settings("sim", settings.model), tmp_path / "sim")

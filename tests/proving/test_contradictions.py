"""What a proof holds against the model, and how near predictions are."""

from typing import Any

from blendplan.proving.contradictions import agreement, contradictions


def run(**other: Any) -> dict[str, Any]:
    row = {
        "workload": "memory",
        "order": "blend",
        "batched_tokens": 256,
        "lengths": "known",
        "failed": 0,
        "steps": 100,
        "planned_steps": 100,
        "prefix_sharing": 0.5,
        "planned_prefix_sharing": 0.52,
        "measured_s": 10.0,
        "predicted_s": 10.5,
    }
    return row | other


def values(*runs: dict[str, Any], **parts: Any) -> dict[str, Any]:
    done = {name: {"state": "done", "values": found} for name, found in parts.items()}
    return {"runs": list(runs), "parts": {"kernels": {"state": "skipped"}} | done}


def orders(measured: float, predicted: float | None, lengths: str = "known") -> dict[str, Any]:
    gain = {"median": measured, "least": measured, "most": measured, "predicted": predicted}
    blend = {"stock": False, "lengths": lengths, "gain": {"input": gain}}
    return {"workloads": {"memory": {"orders": {"blend": blend}}}}


def test_what_agrees_is_not_told() -> None:
    assert contradictions(values(run(), runs=orders(0.12, 0.10))) == []


def test_far_predictions_steps_and_failures_are_told_the_worst_first() -> None:
    found = contradictions(
        values(
            run(order="dfs", predicted_s=12.0),
            run(failed=3),
            run(order="input", steps=130),
            run(order="blendserve", predicted_s=5.0),
            run(workload="compute", prefix_sharing=0.4),
        )
    )
    assert [(one["what"].rpartition(": ")[2], one["measured"]) for one in found] == [
        ("requests that fail", 3),
        ("makespan", 10.0),
        ("steps", 130),
        ("makespan", 10.0),
        ("prefix sharing", 0.4),
    ]


def test_repeats_count_once_by_their_median() -> None:
    slow = [run(measured_s=seconds) for seconds in (10.0, 14.0, 15.0)]
    assert [one["measured"] for one in contradictions(values(*slow))] == [14.0]
    assert contradictions(values(run(), run(), run(measured_s=30.0))) == []


def test_lengths_of_a_sample_need_not_be_predicted() -> None:
    far = run(predicted_s=20.0, steps=140, lengths="sample")
    assert contradictions(values(far)) == []
    assert agreement([far, run(), run(predicted_s=12.0)])["within"] == 1
    # Nor is a gain over an order that was predicted with other lengths.
    assert contradictions(values(runs=orders(0.09, None, "sample"))) == []
    assert contradictions(values(runs=orders(0.09, 4.04, "sample"))) == []
    (lost,) = contradictions(values(runs=orders(-0.04, None, "sample")))
    assert (lost["expected"], lost["measured"]) == (None, -0.04)


def test_a_promised_gain_that_is_a_loss_comes_before_one_that_is_smaller() -> None:
    lost, less = orders(-0.03, 0.03), orders(0.02, 0.12)
    weights = [contradictions(values(runs=one))[0]["weight"] for one in (lost, less)]
    assert weights[0] > weights[1]
    assert contradictions(values(runs=orders(0.02, 0.04))) == []


def test_prices_and_kernels_that_are_off_are_told() -> None:
    kind = {"total_error": 0.4, "time_share": 0.5, "predicted_s": 1.4, "measured_s": 1.0}
    fine = kind | {"total_error": 0.1}
    steps = {"held_out": {"kinds": {"mixed": fine}}, "catalogue": {"kinds": {"mixed": kind}}}
    fit = {
        "operator": "gemm",
        "dtype": "bf16",
        "kernel": "cublas",
        "error_share": 0.1,
        "shipped_error_share": 0.3,
    }
    found = contradictions(values(steps=steps, kernels={"fits": [fit]}))
    assert [one["part"] for one in found] == ["kernels", "steps"]
    assert found[1]["what"].startswith("shipped prices, steps of mixed")

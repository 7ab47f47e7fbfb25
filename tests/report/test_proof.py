"""A proof in words and as a page."""

import io
from pathlib import Path
from typing import Any

from rich.console import Console

from blendplan.report.proof import proof
from blendplan.report.proof_page import proof_page, write_proof_page
from tests.report.proofs import ORDERS, proof_told


def words(values: dict[str, Any], width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(proof(values))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_contradictions_are_said_first() -> None:
    said = words(proof_told())
    assert said.startswith("tiny <&> on l4, vllm 0.32.0, 2026-01-02")
    assert said.index("one engine that blends, faster than two side by side: time") < said.index(
        "blend, sample"
    )
    assert "memory: 500 requests, measured" in said
    assert "12 of 12 predicted makespans are within 15 % of the measured one" in said
    assert said.rstrip().endswith("wrote proof")


def test_a_long_list_is_cut_with_a_number() -> None:
    values = proof_told()
    values["contradictions"] *= 4
    assert f"and {len(values['contradictions']) - 10} more" in words(values)


def test_nothing_measured_yet_says_why() -> None:
    said = words(proof_told(done=False))
    assert "no run to compare with its plan" in said
    assert "runs: left, the time was over" in said


def test_the_page_has_every_part_and_escapes_names() -> None:
    text = proof_page(proof_told())
    assert "tiny &lt;&amp;&gt; on l4" in text
    heads = (
        "What contradicts the model",
        "Predicted and measured makespans",
        "throughput gained over input order",
        "KV cache in use over time",
        "where the time went",
        "Kernels",
        "Overlap of GEMM and decode attention",
        "Prices of steps, as shipped",
        "Two engines side by side",
        "Prefill beside decoding",
        "with and without CUDA graphs",
    )
    assert [head for head in heads if head not in text] == []
    assert [order for order in ORDERS if order not in text] == []
    assert text.index(heads[0]) < text.index(heads[1])


def test_a_page_without_measurements(tmp_path: Path) -> None:
    write_proof_page(proof_told(done=False), tmp_path / "proof.html")
    assert "Not measured" in (tmp_path / "proof.html").read_text()

"""Take proofs into the project: their figures as JSON, and the tables that show them.

    python -m benchmarks.proof_results [PROOF ...]

Each PROOF is a folder that ``blendplan prove`` wrote. Its figures go to
``benchmarks/results/proofs/MACHINE.json``, the newest of a machine's, and the tables in
docs/proof.md and README.md are made anew of all of them.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.paper_tables import replaced

from blendplan.proving.folder import PROOF
from blendplan.report.proof import contradiction_rows, gain_words
from blendplan.report.quantities import duration, share
from blendplan.report.quantities import gain as words

PROJECT = Path(__file__).parents[1]
RESULTS = PROJECT / "benchmarks" / "results"
PROOFS = "proofs"
# What is drawn and not told, and what a machine's own files hold.
_LEFT_OUT = ("course", "priced", "priced_shipped", "graph_sizes")

Values = Mapping[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("proofs", nargs="*", type=Path, metavar="PROOF")
    for folder in parser.parse_args().proofs:
        values = condensed(json.loads((folder / PROOF.summary).read_text(encoding="utf-8")))
        place = RESULTS / PROOFS / f"{machine_name(values)}.json"
        place.parent.mkdir(exist_ok=True)
        place.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    fill_proofs(PROJECT / "docs" / "proof.md", RESULTS)
    fill_readme(PROJECT / "README.md", RESULTS)
    return 0


def condensed(values: Values) -> dict[str, Any]:
    """A proof without what is drawn only, nor the names of anybody's folders."""
    identity = dict(values["identity"]) | {"model": Path(values["identity"]["model"]).name}
    runs = [
        {name: value for name, value in run.items() if name not in _LEFT_OUT}
        for run in values["runs"]
    ]
    return {**values, "identity": identity, "runs": runs}


def machine_name(values: Values) -> str:
    """The GPU, or ``cpu``, with the engine: ``h100-80g-vllm``."""
    identity = values["identity"]
    return re.sub(r"[^a-z0-9.-]+", "-", f"{identity['gpu'] or 'cpu'}-{identity['engine']}".lower())


def fill_proofs(page: Path, results: Path) -> None:
    """Put the tables of all proofs between the marks of docs/proof.md."""
    text = page.read_text(encoding="utf-8")
    page.write_text(replaced(text, "proofs", "\n".join(_pages(results))), encoding="utf-8")


def fill_readme(page: Path, results: Path) -> None:
    """Put the measured gains between the marks of the README."""
    lines = [
        "| measured on | workload | `blend` over input order | over depth-first | predicted |",
        "| --- | --- | --- | --- | --- |",
    ]
    for values in _proofs(results):
        for name, workload in _workloads(values).items():
            gain = workload["orders"]["blend"]["gain"]
            predicted = " and ".join(words(gain[base]["predicted"]) for base in ("input", "dfs"))
            lines.append(
                f"| {_where(values)} | {name} | {gain_words(gain['input'])} | "
                f"{gain_words(gain['dfs'])} | {predicted} |"
            )
    text = page.read_text(encoding="utf-8")
    page.write_text(replaced(text, "measured", "\n".join(lines)), encoding="utf-8")


def _proofs(results: Path) -> list[Values]:
    """All that were taken in, those of GPUs first."""
    read = [json.loads(path.read_text()) for path in sorted((results / PROOFS).glob("*.json"))]
    return sorted(read, key=lambda values: values["identity"]["gpu"] is None)


def _pages(results: Path) -> Iterator[str]:
    for values in _proofs(results):
        machine, agreed = values["machine"], values["agreement"]
        versions = ", ".join(f"{name} {one}" for name, one in machine["versions"].items())
        yield f"### {_where(values)}\n"
        yield (
            f"Measured {machine['date']} on {machine['cores']} cores of {machine['cpu']}; "
            f"{versions}. Model {values['identity']['model']}, KV cache of "
            f"{values['kv_tokens']:,} tokens, {values['identity']['max_num_seqs']} sequences.\n"
        )
        yield from _contradictions(values)
        yield (
            f"{agreed['within']} of {agreed['runs']} predicted makespans of known lengths are "
            f"within 15 % of the measured ones.\n"
        )
        for name, workload in _workloads(values).items():
            yield from _workload(name, workload)


def _contradictions(values: Values) -> Iterator[str]:
    rows = contradiction_rows(values)
    if not rows:
        yield "Nothing that was measured contradicts the model.\n"
        return
    yield "What contradicts the model:\n"
    yield "| | expected | measured |\n| --- | --- | --- |"
    yield from (f"| {what} | {expected} | {measured} |" for what, expected, measured in rows)
    yield ""


def _workload(name: str, workload: Values) -> Iterator[str]:
    yield f"{name}, {workload['requests']:,} requests:\n"
    yield (
        "| order | tokens a step | measured | predicted | gain over input order | over depth-first "
        "| cached | preempted |\n| --- | --- | --- | --- | --- | --- | --- | --- |"
    )
    for title, order in workload["orders"].items():
        ends = min(order["measured_s"]), max(order["measured_s"])
        yield (
            f"| {title}{', stock engine' if order['stock'] else ''} | {order['batched_tokens']:,} "
            f"| {duration(ends[0])} to {duration(ends[1])} | {duration(order['predicted_s'])} | "
            f"{gain_words(order['gain'].get('input'))} | {gain_words(order['gain'].get('dfs'))} | "
            f"{share(order['prefix_sharing'])} | {order['preemptions']:,.0f} |"
        )
    yield ""


def _workloads(values: Values) -> Mapping[str, Any]:
    found: Mapping[str, Any] = values["parts"]["runs"].get("values", {}).get("workloads", {})
    return found


def _where(values: Values) -> str:
    identity = values["identity"]
    engine = values["runs"][0]["engine"] if values["runs"] else identity["engine"]
    return f"{identity['gpu'] or 'a CPU'}, {engine}, {identity['model']}"


if __name__ == "__main__":
    sys.exit(main())

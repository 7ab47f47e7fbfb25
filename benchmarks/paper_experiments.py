"""What is run for each table and figure of the paper; `EXPERIMENTS` by name."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.paper_runs import (
    Place,
    Row,
    Variant,
    certain,
    run_believed,
    run_policies,
    run_variants,
    sampled,
    scratch_folder,
    unmetered,
    workload,
)
from benchmarks.synthetic.workloads import PAPER_TRACES, Recipe, mix

from blendplan.cost.datasheet import datasheet_cost
from blendplan.errors import BlendplanError
from blendplan.hardware.lookup import gpu_spec, model_spec
from blendplan.policy.blend.start import BlendOptions

FULL_REQUESTS = 400_000
SMALL_REQUESTS = 100_000
PLACES = (Place(), Place(model="llama-3.1-70b", tp=8))
REPLICAS = (1, 2, 4, 32)
BEST = ("dfs", "blendserve", "blend")
OTHER_MODELS = (
    Place(model="llama-2-7b"),
    Place(model="mistral-7b"),
    Place(model="qwen-2.5-7b"),
    Place(model="qwen-3-14b", tp=2),
    Place(model="mixtral-8x7b", tp=4),
    Place(model="deepseek-67b", tp=8),
    Place(model="qwen-2.5-72b", tp=8),
)
# Parts of `blend`, each switched off by itself: in the options, or in what the policy is told of
# the requests.
PARTS = {
    "as it is": Variant(),
    "projected peak of up to four times the capacity to begin with": Variant(
        BlendOptions(limit=4.0)
    ),
    "projected peak within the capacity to begin with": Variant(BlendOptions(limit=1.0)),
    "nothing reserved for the compute side": Variant(BlendOptions(reserve=0.0)),
    "prefill not metered by the remaining work": Variant(change=unmetered),
    "families not kept together": Variant(BlendOptions(families=False)),
    "predictions taken at their word": Variant(change=certain),
    "sides part at three times the density of the whole": Variant(BlendOptions(boundary=3.0)),
}
KNOWLEDGE = ("known", "sample", "family mean", "noise 0.5", "noise 1")
OVERLAPS = (2.0, 1.0, float("inf"))
OTHER_SOURCES = ("azure-code", "azure-conv", "sharegpt", "wildchat")
DENSITIES = [round(0.80 + 0.05 * step, 2) for step in range(13)]
SHARINGS = [round(0.05 + 0.10 * step, 2) for step in range(5)]


def figure7(data: Path, requests: int | None) -> dict[str, Any]:
    """Table 2 with Figures 7 and 9: the four workloads on both models, without and with overlap."""
    rows = []
    for place in PLACES:
        for name, recipe in PAPER_TRACES.items():
            made = workload(recipe, data, place, requests or FULL_REQUESTS)
            for overlap in (1.0, 2.0):
                here = Place(place.gpu, place.model, place.tp, overlap)
                row = run_policies(made, here)
                rows.append(_labelled(row, here, name=name))
                _say(rows[-1])
    return {"rows": rows}


def figure11(data: Path, requests: int | None) -> dict[str, Any]:
    """The grid of 65 workloads."""
    rows = []
    for density in DENSITIES:
        for sharing in SHARINGS:
            recipe = Recipe(density=density, sharing=sharing)
            made = workload(recipe, data, Place(), requests or SMALL_REQUESTS)
            row = run_policies(made, Place(), (*BEST, "random"), dfs_orders=False)
            rows.append(_labelled(row, Place(), target=[density, sharing]))
            _say(rows[-1])
    return {"rows": rows}


def figure12(data: Path, requests: int | None) -> dict[str, Any]:
    """Other models, on the first and the second workload."""
    rows = []
    for place in OTHER_MODELS:
        for name in ("trace1", "trace2"):
            try:
                made = workload(PAPER_TRACES[name], data, place, requests or SMALL_REQUESTS)
            except BlendplanError as error:
                rows.append({"model": place.model, "name": name, "impossible": str(error)})
                continue
            rows.append(_labelled(run_policies(made, place, BEST), place, name=name))
            _say(rows[-1])
    return {"rows": rows}


def figure13(data: Path, requests: int | None) -> dict[str, Any]:
    """Figures 13 to 15: other compute-heavy sources in the place of BurstGPT."""
    rows = []
    for source in OTHER_SOURCES:
        for name, recipe in PAPER_TRACES.items():
            other = Recipe(source, recipe.memory, recipe.density, recipe.sharing)
            try:
                made = workload(other, data, Place(), requests or SMALL_REQUESTS)
            except BlendplanError as error:
                rows.append({"source": source, "name": name, "impossible": str(error)})
                continue
            row = run_policies(made, Place(), BEST)
            rows.append(_labelled(row, Place(), name=name, source=source))
            _say(rows[-1])
    return {"rows": rows}


def causes(data: Path, requests: int | None) -> dict[str, Any]:
    """What the gap to the paper's numbers hangs on: the spread of the videos' lengths."""
    rows = []
    for memory in ("openvid", "openvid-clips"):
        for trace in ("trace1", "trace2"):
            recipe = replace(PAPER_TRACES[trace], memory=memory)
            made = workload(recipe, data, Place(), requests or FULL_REQUESTS)
            row = run_policies(made, Place(), BEST)
            rows.append(_labelled(row, Place(), name=trace, source=memory))
            _say(rows[-1])
    return {"rows": rows}


def ablation(data: Path, requests: int | None) -> dict[str, Any]:
    """`blend` with one of its parts switched off at a time, lengths known and not."""
    rows = []
    for name in ("trace1", "trace4"):
        made = workload(PAPER_TRACES[name], data, Place(), requests or FULL_REQUESTS)
        for knowledge in ("known", "family mean"):
            for overlap in (2.0, 1.0):
                for label, row in run_variants(
                    made, Place(overlap=overlap), PARTS, knowledge
                ).items():
                    labels = {"name": name, "knowledge": knowledge, "overlap": overlap}
                    rows.append({**labels, "part": label, **row})
                    print(f"  {labels} {label}: {row['bound_ratio']:.1%}", flush=True)
    return {"rows": rows}


def goals(data: Path, requests: int | None) -> dict[str, Any]:
    """How near `blend` comes to the bound, by what it knows of the output lengths."""
    rows = []
    for name, recipe in PAPER_TRACES.items():
        made = workload(recipe, data, Place(), requests or FULL_REQUESTS)
        for knowledge in KNOWLEDGE:
            for overlap in OVERLAPS if knowledge in ("known", "sample") else OVERLAPS[:2]:
                row = run_believed(made, Place(overlap=overlap), knowledge)
                rows.append({"workload": name, "knowledge": knowledge, "overlap": overlap, **row})
                print(f"  {name} {knowledge} q = {overlap}: {row['blend']:.1f} %", flush=True)
    return {"rows": rows}


def table3(data: Path, requests: int | None) -> dict[str, Any]:
    """Data parallel: how much faster several engines are than one."""
    rows = []
    for name in ("trace1", "trace4"):
        made = workload(PAPER_TRACES[name], data, Place(), requests or FULL_REQUESTS)
        for replicas in REPLICAS:
            row = run_policies(made, Place(), ["blend"], replicas=replicas)
            rows.append(_labelled(row, Place(), name=f"{name} on {replicas}", replicas=replicas))
            _say(rows[-1])
    return {"rows": rows}


def lengths(data: Path, requests: int | None) -> dict[str, Any]:
    """What policies lose when they see a 1 % sample of the output lengths, or none."""
    rows = []
    sources = ("burstgpt", "sharegpt")
    for source in sources:
        for trace in ("trace1", "trace2"):
            recipe = PAPER_TRACES[trace]
            mixed = Recipe(source, recipe.memory, recipe.density, recipe.sharing)
            made = workload(mixed, data, Place(), requests or SMALL_REQUESTS)
            with scratch_folder() as folder:
                methods = {
                    "known": "known",
                    "1 % sample": sampled(made, 0.01, Path(folder)),
                    "prior": "prior",
                }
                for label, method in methods.items():
                    row = run_policies(
                        made, Place(), BEST, lengths=method, dfs_orders=label == "known"
                    )
                    rows.append(_labelled(row, Place(), name=trace, source=source, lengths=label))
                    _say(rows[-1])
    return {"rows": rows}


def table4(data: Path, requests: int | None) -> dict[str, Any]:
    """Density and sharing of the sources, in the ways that the paper's table may be read."""
    costs = datasheet_cost(model_spec("llama-3.1-8b"), gpu_spec("a100-80g"), active_parameters=8e9)
    rows = []
    for source in (*OTHER_SOURCES, "openvid", "openvid-clips", "burstgpt", "mmlu", "bwb"):
        mixture = mix(Recipe(source, None), data, requests=requests or 50_000, costs=costs)
        family = mixture.families[0]
        prompts, outputs = family.prompt_tokens.mean(), family.rows.output_tokens.mean()
        compute_s, memory_s = costs.demand([prompts], [outputs])
        kept = mixture.density * mixture.memory_s / mixture.compute_s
        rows.append(
            {
                "source": source,
                "sharing": mixture.sharing,
                "density": mixture.density,
                "density_of_means": float(kept * compute_s[0] / memory_s[0]),
                "mean_prompt_tokens": float(prompts),
                "mean_output_tokens": float(outputs),
            }
        )
    return {"rows": rows}


def _labelled(row: Row, place: Place, **labels: Any) -> Row:
    where = {"model": place.model, "gpu": place.gpu, "tp": place.tp, "overlap": place.overlap}
    return labels | where | row


def _say(row: Row) -> None:
    """One line while it runs: some experiments take long."""
    labels = [row.get("source"), row.get("name") or row.get("target"), row.get("lengths")]
    words = [str(label) for label in labels if label is not None]
    ratios = [f"{name} {one['bound_ratio']:.1%}" for name, one in row["policies"].items()]
    print(
        f"  {row['model']} q={row['overlap']:g} {' '.join(words)}: {', '.join(ratios)}", flush=True
    )


EXPERIMENTS: dict[str, Callable[[Path, int | None], dict[str, Any]]] = {
    "table4": table4,
    "figure7": figure7,
    "figure11": figure11,
    "figure12": figure12,
    "figure13": figure13,
    "causes": causes,
    "ablation": ablation,
    "goals": goals,
    "table3": table3,
    "lengths": lengths,
}
"""By name of the result file; each takes the trace folder and a number of requests per workload."""

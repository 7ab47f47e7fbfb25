"""What a plan promises, and how policies compare; the numbers are those of ``--json``."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table

from blendplan.planning.verdict import USUAL
from blendplan.report.quantities import count, duration, gain, learned, probability, rounded, share
from blendplan.report.roles import ORDERS
from blendplan.report.tables import Column, Columns


def facts(rows: Mapping[str, str]) -> Table:
    """Labelled lines."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for label, text in rows.items():
        table.add_row(label, text)
    return table


def headline_rows(plan: Mapping[str, Any]) -> dict[str, str]:
    """The headline numbers of one plan in words.

    Args:
        plan: keys ``requests``, ``policy``, ``gpu``, ``tp``, ``replicas``, ``model``,
            ``cost_model``, ``overlap``, ``density``, ``prefix_sharing``, ``predicted``,
            ``bound_s``, ``bound_ratio``, ``replan``; ``sequences`` where requests ask for several
            answers, ``window`` and ``coverage`` where not all of the file is planned, ``tail``
            where makespan was traded.
    """
    sharing, predicted = plan["prefix_sharing"], plan["predicted"]
    return {
        "requests": count(plan["requests"])
        + (f", {count(plan['sequences'])} answers in all" if "sequences" in plan else ""),
        **_part_of_job(plan),
        "for": f"{plan['model']} on {_machines(plan)}, "
        f"overlap exponent {float(plan['overlap']):g}, "
        f"{plan['cost_model']} prices",
        "policy": _policy(plan),
        "density": f"{rounded(plan['density'])} compute time over memory time",
        "prefix sharing": f"{share(sharing['planned'])} of the prompt tokens; "
        f"{share(sharing['optimal'])} is possible",
        "makespan": f"{duration(predicted['makespan_s'])} in {count(predicted['steps'])} steps "
        f"with {count(predicted['preemptions'])} preemptions",
        **_chances(predicted),
        **_traded(plan),
        "throughput": f"{rounded(predicted['throughput_tokens_per_s'])} tokens/s",
        "lower bound": f"{duration(plan['bound_s'])}; no schedule takes less than "
        f"{share(plan['bound_ratio'])} of this makespan",
        **({"lengths learned": learned(plan["replan"])} if plan["replan"] else {}),
    }


def comparison(policies: Mapping[str, Mapping[str, Any]], sentences: Sequence[str] = ()) -> Group:
    """One row per policy, with what it gains in throughput over the usual orders.

    Args:
        policies: by name, a mapping with the keys of `headline_rows` and ``plan_wall_s``.
        sentences: what it comes to, printed below.
    """
    baselines = [name for name in policies if name in USUAL]
    columns = [
        Column("policy", text=True),
        Column("order", text=True, spare=3),
        Column("makespan"),
        Column("tokens/s"),
        *(Column(f"over {name}") for name in baselines),
        Column("of the optimum", narrow="of the\noptimum"),
        Column("sharing"),
        Column("preemptions", narrow="preemp-\ntions", spare=1),
        Column("planned in", spare=2),
    ]
    rows = [
        (
            name,
            ORDERS.get(name, ""),
            duration(plan["predicted"]["makespan_s"]),
            rounded(plan["predicted"]["throughput_tokens_per_s"]),
            *(_gain(plan, policies[baseline]) for baseline in baselines),
            share(plan["bound_ratio"]),
            share(plan["prefix_sharing"]["planned"]),
            count(plan["predicted"]["preemptions"]),
            duration(plan["plan_wall_s"]),
        )
        for name, plan in policies.items()
    ]
    return Group(Columns(columns, rows), *(("", *sentences) if sentences else ()))


def _machines(plan: Mapping[str, Any]) -> str:
    """How many engines, of how many GPUs each, where it is more than one: ``2 x 4 x h100-80g``."""
    numbers = [plan["replicas"], plan["tp"]] if plan["replicas"] > 1 else [plan["tp"]]
    parts = [f"{number} x" for number in numbers if numbers != [1]]
    return " ".join([*parts, str(plan["gpu"])])


def _policy(plan: Mapping[str, Any]) -> str:
    """The policy, and the plain order that `blend` comes down to where nothing beats it.

    In bursts, that order is not what an engine makes of it.
    """
    if plan["policy"] != "blend":
        return str(plan["policy"])
    order = ORDERS.get(plan.get("order", ""))
    if plan.get("burst_steps", 1) > 1:
        return "blend, in bursts" if order is None else f"blend; {order} order in bursts"
    return "blend" if order is None else f"blend; nothing beats {order} order here"


def _part_of_job(plan: Mapping[str, Any]) -> dict[str, str]:
    """What becomes of the requests that are not in a plan of a part of a job."""
    rows = {}
    if "window" in plan:
        window = plan["window"]
        rows["within"] = (
            f"{duration(window['within_s'])}, with a probability of at least "
            f"{probability(window['chance'])}; {count(window['postponed'])} requests are left for "
            "later"
        )
        if window.get("too_long"):
            rows["within"] += f", {count(window['too_long'])} of them too long by themselves"
    if "coverage" in plan:
        of = plan["coverage"]
        rows["of the file"] = (
            f"{count(of['file'])} requests: {count(of['planned'])} planned, "
            f"{count(of['postponed'])} for later, {count(of['already'])} planned or answered "
            f"already, {count(of['rejected'])} bad or too long"
        )
        if of["repeated"]:
            rows["of the file"] += f", {count(of['repeated'])} answered with identical ones"
    return rows


def _traded(plan: Mapping[str, Any]) -> dict[str, str]:
    """What an earlier turnaround costs."""
    if "tail" not in plan:
        return {}
    tail = plan["tail"]
    return {
        "earlier": f"{tail['soonest'].upper()} of the turnaround is {share(tail['sooner'])} "
        f"earlier, for a makespan that is {share(tail['longer'])} longer"
    }


def _chances(predicted: Mapping[str, Any]) -> dict[str, str]:
    """How sure the makespan is; nothing to say where every output length is known."""
    quantiles = predicted.get("makespan_quantiles_s", {})
    half, most = quantiles.get("p50"), quantiles.get("p90")
    if half == most:
        return {}
    return {
        "by chance": f"{duration(half)} or less half of the time, {duration(most)} or less nine "
        "times in ten"
    }


def _gain(plan: Mapping[str, Any], baseline: Mapping[str, Any]) -> str:
    if plan is baseline:
        return ""
    theirs = baseline["predicted"]["throughput_tokens_per_s"]
    return gain(plan["predicted"]["throughput_tokens_per_s"] / theirs - 1)

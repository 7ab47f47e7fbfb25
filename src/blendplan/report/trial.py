"""What a trial found, in words and as a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType

from blendplan.planning.verdict import SAME
from blendplan.report.quantities import count, duration, gain, rounded, share
from blendplan.report.roles import ORDERS
from blendplan.report.summary import facts
from blendplan.report.tables import Column, Columns

Values = Mapping[str, Any]

# Of the time: prices that are off by more than this share are not right.
RIGHT = 0.15
# Where the gain of a single run is by more than this another than that of its steps, it is chance.
DRIFT = 0.1


def tried(values: Values) -> Group:
    """Both ways side by side, what it comes to, and what to do with it.

    Args:
        values: keys as in ``blendplan trial --json``.
    """
    columns = [Column("", text=True), Column("input order"), Column("as planned")]
    parts: list[RenderableType] = [Columns(columns, comparison(values)), "", facts(_rows(values))]
    said = sentences(values)
    parts += ["", *said] if said else []
    return Group(*parts)


def comparison(values: Values) -> list[Sequence[str]]:
    """Rows of what was measured either way, and predicted."""
    theirs, ours = values["gain"]["input"], values["gain"]["planned"]
    planned = values["predicted"]
    forms = {
        "makespan_s": ("makespan", duration),
        "throughput_tokens_per_s": ("tokens/s", rounded),
        "output_tokens": ("output tokens", rounded),
        "prefix_sharing": ("prefix sharing", share),
        "preemptions": ("preemptions", count),
    }
    rows: list[Sequence[str]] = []
    for name, (title, words) in forms.items():
        rows.append((title, *(_known(one[name], words) for one in (theirs, ours))))
        if name in ("makespan_s", "throughput_tokens_per_s"):
            both = (planned["input"][name], planned["planned"][name])
            rows.append((f"{title}, predicted", *map(words, both)))
    return rows


def answer(values: Values) -> str:
    """Whether it helped, in a few words."""
    got = values["gain"]
    throughput = got["throughput"]
    among = f", {gain(got['least'])} to {gain(got['most'])}" if got["repeats"] > 1 else ""
    words = f"{gain(throughput)} tokens/s{among}"
    if values["order"] == "fcfs":
        return f"not by this plan, which is input order: {words}"
    if got["least"] <= 0.0 <= got["most"] and got["repeats"] > 1:
        return f"not clear: {words}"
    explained = _explained(values)
    if explained is not None:
        return f"not clear: {words}, of which the steps explain {gain(explained)}"
    if abs(throughput) < SAME:
        return f"no difference here: {words}"
    return f"{'yes' if throughput > 0 else 'no'}: {words}"


def _explained(values: Values) -> float | None:
    """The gain by the steps that were taken, where that of a single run is by much another.

    Steps have the same prices for both ways, so the machine was slower in one of the two; several
    repeats would show it by themselves. None where there are some, or prices are not known.
    """
    if values["prices"] is None or values["gain"]["repeats"] > 1:
        return None
    fitted, measured = values["prices"]["fitted"], float(values["gain"]["makespan"])
    priced = {way: 1.0 + fitted[way]["total_error"] for way in ("input", "planned")}
    by_steps = (1.0 + measured) * priced["input"] / priced["planned"] - 1.0
    return by_steps if abs(measured - by_steps) > DRIFT else None


def prices(values: Values) -> str:
    """Whether steps took the time that the plan's prices say."""
    if values["prices"] is None:
        return f"not known: {values['no_prices']}"
    given = values["prices"]["given"]["planned"]
    error = given["total_error"]
    right = "right" if _right(values) else "wrong"
    off = 1.0 / (1.0 + error) - 1.0
    took = "the time that was"
    if off >= 1.0:
        took = f"{rounded(1.0 + off)} times the time that was"
    elif abs(off) >= 5e-4:
        took = f"{share(abs(off))} {'more' if off > 0 else 'less'} time than"
    return (
        f"{right}: steps took {took} priced, a single step is off by "
        f"{share(given['median_error'])} at the median"
    )


def _right(values: Values) -> bool:
    return abs(values["prices"]["given"]["planned"]["total_error"]) <= RIGHT


def whole(values: Values) -> str:
    """What to expect of all requests."""
    job, name = values["whole"], values["policy"]
    ours = job["policies"][name]
    by = "by the fitted prices" if values["profile"] else "by the plan's prices"
    over = " and ".join(
        f"{gain(one['gain'])} over {ORDERS.get(other, other)} order"
        for other, one in job["policies"].items()
        if other != name
    )
    told = f"{duration(ours['makespan_s'])} {by}, simulated"
    return f"{told}: {over}" if over else told


def sentences(values: Values) -> list[str]:
    """What to know of how far to trust this, one line each."""
    expected = values["whole"]["policies"]["fcfs"]["gain"]
    said = list(values["remarks"])
    if values["order"] == "fcfs":
        why = "by the prices of the plan, nothing beats input order"
        if values["policy"] == "fcfs":
            why = "the policy fcfs is input order"
        said.append(f"{why}: both ways ran in the same one, and what differs is chance")
    if _explained(values) is not None:
        said.append(
            "the same steps took longer in one of the two runs than in the other: what differs is "
            "mostly the machine, which --repeats 3 would average"
        )
    if values["prices"] is not None and not _right(values):
        said.append(
            "a plan by other prices is another one: the same trial with --gpu "
            f"{values['profile']} of this folder, and another -o, tries the one for this machine"
        )
    if abs(expected - values["gain"]["throughput"]) > SAME:
        said.append(
            f"the excerpt gains {gain(values['gain']['throughput'])}, and all requests are "
            f"expected to gain {gain(expected)}: beginning and end weigh more in a short run, and "
            "what shares a prefix is nearer together"
        )
    return said


def _rows(values: Values) -> dict[str, str]:
    requests = values["excerpt"]["requests"]
    simulated = " (simulated)" if values["simulated"] else ""
    rows = {
        "excerpt": f"{count(requests['excerpt'])} of {count(requests['whole'])} requests, "
        f"{values['engine']}{simulated}, {values['model']} on {values['gpu']}",
        "does it help": answer(values),
        "predicted gain": gain(values["predicted"]["gain"]),
        "prices": prices(values),
        f"all {count(requests['whole'])} requests": whole(values),
    }
    folder = values["folder"].rstrip("/")
    if values["profile"]:
        rows["profile"] = f"{folder}/{values['profile']}, for --gpu"
    return rows | {"answers": f"{folder}/planned.jsonl, for replay --already"}


def _known(value: float | None, words: Any) -> str:
    return "not told" if value is None else str(words(value))

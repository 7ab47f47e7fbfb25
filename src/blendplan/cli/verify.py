"""``blendplan verify``: a plan file against itself, and against the request file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from blendplan.cli.answer import Answer, answering
from blendplan.cli.options import FILE
from blendplan.cli.progress import Progress


@click.command("verify")
@click.argument("plan_file", metavar="PLAN", type=FILE)
@click.option(
    "--requests",
    "requests_file",
    type=FILE,
    metavar="FILE",
    help="Check too that the plan was made from this request file.",
)
@answering
def command(plan_file: Path, requests_file: Path | None, answer: Answer) -> None:
    """Check a plan file.

    Says what was checked: that PLAN is whole, unaltered and consistent with itself.
    """
    with Progress(quiet=answer.quiet) as progress:
        from blendplan.planfile.opened import open_plan

        progress.stage(f"verifying {plan_file.name}")
        plan = open_plan(plan_file)
        checked = plan.verify()
        if requests_file is not None:
            checked.append(_check_source(requests_file, plan.metadata["request_file_sha256"]))
    values = {
        "plan": str(plan_file),
        "requests": plan.requests,
        "verified": True,
        "checked": checked,
    }
    answer.tell(values, lambda shown: "\n".join(_lines(shown)))


def _lines(values: Mapping[str, Any]) -> list[str]:
    checked = [f"checked {line}" for line in values["checked"]]
    return [*checked, f"{values['plan']} is whole and consistent"]


def _check_source(path: Path, stated: str) -> str:
    from hashlib import file_digest

    from blendplan.errors import BlendplanError

    with path.open("rb") as file:
        seen = file_digest(file, "sha256").hexdigest()
    if seen != stated:
        raise BlendplanError(
            f"{path} is not the request file of this plan: its SHA-256 is {seen[:12]}..., "
            f"the plan was made from {stated[:12] or 'no file'}...; plan it again"
        )
    return f"made from {path.name}"

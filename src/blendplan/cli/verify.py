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
    "requests_files",
    multiple=True,
    type=click.Path(),
    metavar="FILE",
    help="Check too that the plan was made from this request file, or for a folder from this file, "
    "folder, glob or address. May be given several times.",
)
@answering
def command(plan_file: Path, requests_files: tuple[str, ...], answer: Answer) -> None:
    """Check a plan, a file or a folder.

    Says what was checked: that PLAN is whole, unaltered and consistent with itself.
    """
    with Progress(quiet=answer.quiet) as progress:
        from blendplan.planfile.opened import open_plan

        progress.stage(f"verifying {plan_file.name}")
        plan = open_plan(plan_file)
        checked = plan.verify()
        if requests_files:
            checked.append(_check_source(requests_files, plan.metadata["request_file_sha256"]))
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


def _check_source(words: tuple[str, ...], stated: str) -> str:
    from blendplan.errors import BlendplanError
    from blendplan.requests.inputs import find_inputs, inputs_sha256, sha256_of

    inputs = find_inputs(words)
    seen = inputs_sha256([sha256_of(one) for one in inputs])
    first = Path(inputs[0].shown)
    if seen != stated:
        what = f"{first} is not the request file" if len(inputs) == 1 else "these are not the files"
        raise BlendplanError(
            f"{what} of this plan: SHA-256 is {seen[:12]}..., the plan was made from "
            f"{stated[:12] or 'no file'}...; plan again"
        )
    return f"made from {first.name}" if len(inputs) == 1 else f"made from {len(inputs)} files"

"""Running ``blendplan`` in tests: in this process and in one of its own, and a small job."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

import blendplan
from blendplan.cli.compilation import NOTICE
from blendplan.cli.group import cli

SOURCES = Path(blendplan.__file__).parent.parent


def run(*arguments: str | Path) -> Result:
    """Run a command line in this process; a defect of the command fails the test."""
    words = [str(argument) for argument in arguments]
    return CliRunner().invoke(cli, words, catch_exceptions=False)


def error_line(result: Result) -> str:
    """The one line of a failed run; nothing may be on standard output."""
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if line != NOTICE]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


def answer(*arguments: str | Path) -> dict[str, Any]:
    """The JSON object of a command line that must succeed, run with ``--json --quiet``."""
    result = run(*arguments, "--json", "--quiet")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    found = json.loads(result.stdout)
    assert isinstance(found, dict)
    return found


def start(*arguments: str | Path, script: str | None = None) -> subprocess.Popen[str]:
    """Start ``blendplan``, or a Python script that ends up in it, as a process of its own."""
    program = ["-m", "blendplan"] if script is None else ["-c", script]
    return subprocess.Popen(
        [sys.executable, *program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def write_job(path: Path, requests: int = 60, *, known_lengths: bool = True) -> Path:
    """A small job of three families: shared prefixes, chat, long outputs."""
    lines = []
    for index in range(requests):
        family = ("exam", "chat", "long")[index % 3]
        if family == "exam":
            prompt, output_tokens = [*range(200), 1000 + index], 2
        elif family == "chat":
            prompt, output_tokens = [2000 + index] * 90, 40
        else:
            prompt, output_tokens = [3000 + index] * 20, 600
        line: dict[str, object] = {
            "id": f"{family}-{index}",
            "prompt_token_ids": prompt,
            "temperature": 0.5,
        }
        if known_lengths:
            line["output_tokens"] = output_tokens
        lines.append(json.dumps(line))
    path.write_text("\n".join(lines) + "\n")
    return path

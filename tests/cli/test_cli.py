"""The command line as a whole: help, usage errors, exit codes, one line per failure."""

import errno
import inspect
import json
import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import click
import pytest

import blendplan
from blendplan.cli import options as planning_options
from blendplan.cli.group import COMMANDS, cli
from blendplan.errors import BlendplanError
from tests.cli.cli_runs import error_line, run

PACKAGE = Path(blendplan.__file__).parent


def test_help_lists_every_command_with_what_it_does() -> None:
    result = run("--help")
    assert result.exit_code == 0
    listed = result.stdout.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in listed] == list(COMMANDS)
    assert all(line.endswith(".") and "..." not in line for line in listed)


def test_no_arguments_show_the_help() -> None:
    assert run().stdout == run("--help").stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_json_and_quiet(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert "--json" in result.stdout
    assert "--quiet" in result.stdout


def test_commands_fill_this_package_one_file_each() -> None:
    files = {path.stem for path in (PACKAGE / "cli").glob("*.py")}
    assert set(COMMANDS) <= files
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        assert command.name == name


def test_version() -> None:
    assert run("--version").stdout == f"blendplan {blendplan.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["pln"], ["unknown command 'pln'", "did you mean 'plan'?", "see 'blendplan --help'"]),
        (["xyzzy"], ["unknown command 'xyzzy'", "choose from run, plan"]),
        (["--hlp"], ["--hlp", "--help"]),
        (["plan"], ["missing"]),
        (["plan", "r", "-o", "p"], ["missing option '--gpu'", "see 'blendplan plan --help'"]),
        (["plan", "r", "--gpu", "h200"], ["missing option '-o FILE'"]),
        (["plan", "r", "--gpus", "h200"], ["--gpus", "--gpu"]),
        (["plan", "r", "--gpu", "a100-80"], ["unknown GPU 'a100-80'", "'a100-80g'"]),
        (["plan", "r", "--gpu", "h200", "--model", "lama-3-8b"], ["model", "'llama-3-8b'"]),
        (["plan", "r", "--gpu", "h200", "--policy", "blendserv"], ["policy", "'blendserve'"]),
        (["plan", "r", "--gpu", "h200", "--cost", "datasheets"], ["cost model", "'datasheet'"]),
        (["plan", "r", "--gpu", "h200", "--kv-dtype", "fp32"], ["KV-cache type 'fp32'", "'fp16'"]),
        (["plan", "r", "--gpu", "h200", "--tp", "0"], ["--tp", "x>=1"]),
        (["plan", "r", "--gpu", "h200", "--tp", "two"], ["--tp", "'two'"]),
        (["plan", "r", "--gpu", "h200", "--overlap", "0.5"], ["--overlap", "from 1 to inf"]),
        (["plan", "r", "--gpu", "h200", "--overlap", "nan"], ["--overlap", "from 1 to inf"]),
        (["plan", "r", "--gpu", "h200", "--lengths", "knwon"], ["length method", "'known'"]),
        (["plan", "r", "--gpu", "h200", "--lengths", "sample"], ["sample:FILE"]),
        (["plan", "r", "--gpu", "h200", "--lengths", "known:x"], ["unknown length method"]),
        (["plan", "r", "--gpu", "h200", "--on-error", "ignore"], ["choose from fail, skip"]),
        (["plan", "r", "--gpu", "h200", "--fraction", "0.1", "-o", "p"], ["--sample-out"]),
        (["plan", "r", "--gpu", "h200", "--sample-out", "s", "-o", "p"], ["leave out --output"]),
        (["plan", "r", "--gpu", "h200", "--sample-out", "s", "--fraction", "0"], ["--fraction"]),
        (["plan", "r", "--gpu", "h200", "--preserve-sharing", "2"], ["--preserve-sharing"]),
        (["plan", "r", "--gpu", "h200", "--gpu-memory-utilization", "9"], ["utilization"]),
        (["compare", "r", "--gpu", "h200", "--policies", "fcfs,dsf"], ["policy 'dsf'", "'dfs'"]),
        (["compare", "r", "--gpu", "h200", "--policies", ""], ["unknown policy ''"]),
        (["replay", "p", "--engine", "simm"], ["unknown engine 'simm'", "'sim'"]),
        (["inspect"], ["missing argument 'PLAN'"]),
        (["verify", "a", "b"], ["unexpected extra argument"]),
        (["gpus", "--jsn"], ["--jsn", "--json"]),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(arguments: list[str], parts: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    line = error_line(result)
    for part in parts:
        assert part.lower() in line.lower()


def _interrupt() -> NoReturn:
    raise KeyboardInterrupt


def _raise(error: Exception) -> Callable[[], NoReturn]:
    def fail() -> NoReturn:
        raise error

    return fail


@pytest.mark.parametrize(
    ("fail", "code", "line"),
    [
        (_raise(BlendplanError("the width is -1;\nit must be positive")), 1,
         "error: the width is -1; it must be positive"),
        (_raise(PermissionError(errno.EACCES, "Permission denied", "x/y")), 1,
         "error: x/y: permission denied"),
        (_raise(OSError(errno.ENOSPC, "No space left on device")), 1,
         "error: no space left on device; free some space or choose another place"),
        (_raise(OSError("something of an Arrow library\non two lines")), 1,
         "error: something of an Arrow library on two lines"),
        (_raise(MemoryError("Unable to allocate 9 TiB")), 1,
         "error: out of memory (Unable to allocate 9 TiB); "
         "use a machine with more, or plan the requests in parts"),
        (_interrupt, 130, "error: interrupted"),
    ],
)  # fmt: skip
def test_failures_are_one_line_with_their_exit_code(
    monkeypatch: pytest.MonkeyPatch, fail: Callable[[], NoReturn], code: int, line: str
) -> None:
    monkeypatch.setattr("blendplan.hardware.lookup.gpu_names", fail)
    result = run("gpus")
    assert result.exit_code == code
    assert error_line(result) == line


def test_a_closed_pipe_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "blendplan.hardware.lookup.gpu_names", _raise(BrokenPipeError(errno.EPIPE, "closed"))
    )
    result = run("gpus")
    assert (result.exit_code, result.output) == (1, "")


def test_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "blendplan.hardware.lookup.gpu_names", _raise(ZeroDivisionError("a defect"))
    )
    with pytest.raises(ZeroDivisionError, match="a defect"):
        run("gpus")


@pytest.mark.parametrize("name", ["gpus", "models"])
def test_catalogues_as_table_and_as_json(name: str) -> None:
    names = list(tomllib.loads((PACKAGE / "hardware" / "catalogue" / f"{name}.toml").read_text()))
    table = run(name)
    assert table.exit_code == 0
    assert [line.split()[0] for line in table.stdout.splitlines()[2:]] == names
    answer = run(name, "--json")
    assert [entry["name"] for entry in json.loads(answer.stdout)[name]] == names
    assert answer.stderr == ""


def test_option_values_are_those_of_the_library() -> None:
    from blendplan.hardware.model import KV_BITS

    assert set(planning_options.KV_DTYPES) <= {"auto", *KV_BITS}


@pytest.mark.parametrize("command", ["plan", "compare", "replay", "sample"])
def test_help_lists_the_names_of_every_registry(command: str) -> None:
    from blendplan.cost.registry import COST_MODELS
    from blendplan.engines.registry import ENGINES
    from blendplan.lengths.registry import length_methods
    from blendplan.policy.registry import POLICIES

    shown = " ".join(run(command, "--help").stdout.split())
    if command in ("replay", "sample"):
        assert all(f"{name}, {ENGINES.get(name).summary}" in shown for name in ENGINES)
    else:
        assert all(", ".join(names) in shown for names in (POLICIES, COST_MODELS, length_methods()))


def test_options_have_the_defaults_of_the_library() -> None:
    from blendplan.cost.machine import machine
    from blendplan.planning.planner import plan

    described = inspect.signature(machine).parameters
    # The layout of the KV cache follows from the model; only plans that are read again state it.
    assert [name for name in described if name != "layout"] == list(planning_options.MACHINE)
    command = cli.get_command(click.Context(cli), "plan")
    assert command is not None
    offered = {option.name: option for option in command.params}
    parameters = {**described, **inspect.signature(plan).parameters}
    none = (inspect.Parameter.empty, None)
    defaults = {name: p.default for name, p in parameters.items() if p.default not in none}
    assert defaults
    assert {name: offered[name].default for name in defaults} == defaults


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["pl"], ["plan"]),
        (["plan", "r", "--gpu", "a100-8"], ["a100-80g"]),
        (["plan", "r", "--gpu", "h200", "--policy", "blends"], ["blendserve"]),
        (["compare", "r", "--policies", "fcfs,df"], ["fcfs,dfs"]),
    ],
)
def test_shell_completion_knows_the_names(words: list[str], completed: list[str]) -> None:
    from click.shell_completion import ShellComplete

    *before, last = words
    items = ShellComplete(cli, {}, "blendplan", "_BLENDPLAN_COMPLETE").get_completions(before, last)
    assert [item.value for item in items] == completed


def test_completion_offers_files_where_no_name_fits() -> None:
    from click.shell_completion import ShellComplete

    complete = ShellComplete(cli, {}, "blendplan", "_BLENDPLAN_COMPLETE").get_completions
    assert [item.type for item in complete(["plan", "r", "--gpu"], "./my")] == ["file"]


def test_models_by_folder_and_alias_pass_the_name_check(tmp_path: Path) -> None:
    for model, line in (
        ("Meta-Llama/Llama-3.1-8B-Instruct", f"'{tmp_path}/none' does not exist; check the path"),
        (tmp_path, f"model config {tmp_path}/config.json: No such file or directory"),
    ):
        result = run("plan", tmp_path / "none", "--gpu", "H100", "--model", model, "-o", os.devnull)
        assert result.exit_code == 1, result.output
        assert line in error_line(result)

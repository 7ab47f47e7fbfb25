"""What README and docs say is so: their Python runs, and the plan format is the plan's."""

import json
import re
import shlex
from pathlib import Path

import pyarrow as pa
import pytest

from blendplan.planfile.columns import METADATA_KEY, SCHEMA
from blendplan.planfile.plan import Plan
from blendplan.planning.quote import Quote
from tests.cli.cli_runs import answer, run, write_job

PROJECT = Path(__file__).parent.parent
README = (PROJECT / "README.md").read_text()
QUOTE = (PROJECT / "docs" / "quote.md").read_text()
JOB = (PROJECT / "docs" / "job.md").read_text()
PLAN_FORMAT = (PROJECT / "docs" / "plan-format.md").read_text()


def python_blocks(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


class Engine:
    """An engine of one's own, as short as it can be: four requests, done after three steps."""

    def __init__(self) -> None:
        self.running: dict[int, int] = {}
        self.seen: list[str] = []

    def busy(self) -> bool:
        return bool(self.running)

    def free_kv_tokens(self) -> int:
        return 10_000 if len(self.running) < 4 else 0

    def submit(self, row: int, request_id: str) -> None:
        self.running[int(row)] = 3
        self.seen.append(request_id)

    def step(self) -> tuple[list[int], list[int], list[int]]:
        self.running = {row: left - 1 for row, left in self.running.items()}
        finished = [row for row, left in self.running.items() if left == 0]
        for row in finished:
            del self.running[row]
        return finished, [], []


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_job(tmp_path / "requests.jsonl")
    return tmp_path


def test_python_of_the_readme_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = python_blocks(README)
    assert len(blocks) == 2
    engine = Engine()
    names: dict[str, object] = {"engine": engine}
    for block in blocks:
        exec(block, names)
    printed = capsys.readouterr().out
    for index in range(60):
        family = ("exam", "chat", "long")[index % 3]
        assert f"'{family}-{index}'" in printed
    assert len(set(engine.seen)) == len(engine.seen) == 60


def test_python_of_the_plan_format_runs(folder: Path) -> None:
    answer("plan", "requests.jsonl", "--gpu", "a100-80g", "-o", "plan.arrow")
    blocks = [block for block in python_blocks(PLAN_FORMAT) if "polars" not in block]
    names: dict[str, object] = {}
    for block in blocks:
        if "duckdb" not in block:
            exec(block, names)
    assert isinstance(names["metadata"], dict)
    assert names["metadata"]["requests"] == 60


def test_python_of_the_quote_page_runs(folder: Path) -> None:
    (block,) = python_blocks(QUOTE)
    names: dict[str, object] = {}
    exec(block.replace("prices=", "processes=1, policy='dfs', prices="), names)
    quoted, plan = names["quoted"], names["plan"]
    assert isinstance(quoted, Quote)
    assert isinstance(plan, Plan)
    assert len(quoted.offers) == 4
    assert len(plan) == 60


def test_plan_format_names_every_column_and_every_key(folder: Path) -> None:
    answer("plan", "requests.jsonl", "--gpu", "a100-80g", "-o", "plan.arrow")
    columns, _, rest = PLAN_FORMAT.partition("## Metadata")
    metadata_table = rest.partition("## Guarantees")[0]
    assert _first_cells(columns) == [*SCHEMA.names, "rejected"]
    schema = pa.ipc.open_file("plan.arrow").schema
    keys = json.loads(schema.metadata[METADATA_KEY])
    # What only some plans say: how many sequences there are, what was left out or is for later, for
    # which engine, by which command, the columns of a table, and identical requests that run once.
    sometimes = ["sequences", "rejected", "serving", "job", "source_columns", "repeats"]
    sometimes += ["window", "coverage", "tail"]
    assert sorted(_first_cells(metadata_table)) == sorted([*keys, *sometimes])


def test_the_walk_through_a_job_works(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With fewer rows, block by block."""
    text = JOB.replace("range(2000)", "range(60)")
    names: dict[str, object] = {}
    ran = []
    for kind, block in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        if kind == "text":
            continue
        if kind == "python":
            exec(block, names)
            continue
        words = shlex.split(block)
        ran.append(words[1])
        result = run(*words[1:])
        assert result.exit_code == 0, result.stderr
        if words[1] != "quote":
            titles = re.findall(r"^([a-z ]+?)  ", _shown_after(text, block), re.MULTILINE)
            assert len(titles) > 8
            # With so few rows there is nothing to be learned.
            assert {one for one in titles if one not in result.stdout} <= {"lengths learned"}
    assert ran == ["plan", "quote", "run"]
    assert "finish_reason" in capsys.readouterr().out


def _shown_after(text: str, block: str) -> str:
    """What a page says that the command prints."""
    return text.partition(block)[2].partition("```text")[2].partition("```")[0]


def _first_cells(text: str) -> list[str]:
    """The names in backquotes in the first column of the tables of a text."""
    rows = re.findall(r"^\| (`[^|]*`) \|", text, re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row)]


PAGES = [
    PROJECT / "README.md",
    *sorted((PROJECT / "docs").glob("*.md")),
    PROJECT / "plans" / "README.md",
]
NAMES = [str(page.relative_to(PROJECT)) for page in PAGES]


def _anchors(page: Path) -> set[str]:
    """Names of a page's headings in links, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in kept}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        assert not anchor or anchor in _anchors(file), target


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_files_that_docs_name_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    folders = "src|tests|benchmarks|examples|docs|plans"
    for name in re.findall(rf"(?<![\w./])(?:{folders})/[\w./]*\.(?:py|md|sh|json|toml)\b", text):
        assert (PROJECT / name).exists(), name


def test_every_command_that_docs_show_exists() -> None:
    found = set()
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = re.findall(r"^```(?:sh)?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        shown = re.findall(r"^(?:\S*bin/)?blendplan ([a-z]+)", "\n".join(blocks), re.MULTILINE)
        found |= {*shown, *re.findall(r"`blendplan ([a-z]+)", text)}
    assert len(found) >= 9
    for command in found:
        assert run(command, "--help").exit_code == 0, command

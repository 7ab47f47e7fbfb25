"""The HTML reports in a real browser: no error in its console, nothing cut at any width."""

import json
from pathlib import Path

import pytest

from blendplan.planning.compare import compare
from blendplan.report.figures import draw_figures
from blendplan.report.html import html_report
from blendplan.report.proof_page import proof_page
from blendplan.requests.read import read_requests
from tests.cli.cli_runs import answer, write_job
from tests.report.browser import BROWSER, look_at
from tests.report.proofs import proof_told

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("pages")
    job = write_job(folder / "requests.jsonl")
    compared = compare(read_requests(job), policies=("fcfs", "blend"), gpu="l4", kv_tokens=8_000)
    results = folder / "results.jsonl"
    answer("run", job, "--engine", "sim", "--gpu", "l4", "-o", results, "--price", "l4=1.5")
    summary = folder / "results.jsonl.summary.html"
    quoted = folder / "quote.html"
    words = ("--gpu", "l4,a10g", "--replicas", "1,2", "--price", "l4=0.8", "--within", "1h")
    answer("quote", job, *words, "--processes", "1", "--html", quoted)
    return {
        "comparison": html_report(draw_figures(compared, "a job", ())),
        "job": summary.read_text(encoding="utf-8"),
        "quote": quoted.read_text(encoding="utf-8"),
        "proof": proof_page(proof_told()),
    }


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("name", ["comparison", "job", "quote", "proof"])
def test_a_page_is_shown_whole(
    pages: dict[str, str], name: str, width: int, tmp_path: Path
) -> None:
    seen = look_at(pages[name], width, tmp_path)
    assert seen.complaints == []
    assert seen.cut == []
    assert seen.text > 300
    assert seen.height > 300


def test_what_is_cut_and_what_fails_is_seen(tmp_path: Path) -> None:
    page = '<body><p style="width:700px">wide</p><script>nothing.there()</script>'
    seen = look_at(page, 400, tmp_path)
    assert seen.cut == ["P: wide"]
    assert len(seen.complaints) == 1
    assert json.dumps(seen.complaints).count("nothing is not defined") == 1
    assert look_at(page, 1400, tmp_path).cut == []

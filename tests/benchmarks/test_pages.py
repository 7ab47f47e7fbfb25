"""README and evaluation page: their figures are what the scripts make of the committed results."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from benchmarks.headline import fill_headline, headline
from benchmarks.mixture_page import fill_evaluation, fill_readme
from benchmarks.model_page import fill_models
from benchmarks.paper_tables import fill_page
from benchmarks.proof_results import fill_proofs
from benchmarks.proof_results import fill_readme as fill_measured

from blendplan.errors import BlendplanError

PROJECT = Path(__file__).parents[2]
RESULTS = PROJECT / "benchmarks" / "results"
README = PROJECT / "README.md"
EVALUATION = PROJECT / "docs" / "evaluation.md"

PAGES = {
    "proof": (PROJECT / "docs" / "proof.md", fill_proofs),
    "readme-measured": (README, fill_measured),
    "readme": (README, fill_headline),
    "evaluation": (EVALUATION, fill_page),
    "readme-mixtures": (README, fill_readme),
    "evaluation-mixtures": (EVALUATION, fill_evaluation),
    "models": (PROJECT / "docs" / "models.md", fill_models),
}


@pytest.mark.parametrize(("page", "fill"), PAGES.values(), ids=PAGES)
def test_a_page_is_what_the_results_fill_it_with(
    page: Path, fill: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    committed = page.read_text(encoding="utf-8")
    copy = tmp_path / page.name
    copy.write_text(committed, encoding="utf-8")
    fill(copy, RESULTS)
    assert copy.read_text(encoding="utf-8") == committed


def test_mixtures_stand_before_the_workloads_of_the_paper() -> None:
    for page, first, later in (
        (README, "<!-- mixtures -->", "<!-- headline -->"),
        (EVALUATION, "<!-- mixtures-shares -->", "<!-- table4 -->"),
    ):
        text = page.read_text(encoding="utf-8")
        assert text.index(first) < text.index(later)


def test_the_headline_is_filled_in(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    text = README.read_text(encoding="utf-8")
    markers = re.compile("(<!-- headline -->\n).*(<!-- end headline -->)", re.DOTALL)
    readme.write_text(markers.sub(r"\1\2", text), encoding="utf-8")
    assert readme.read_text(encoding="utf-8") != text
    fill_headline(readme, RESULTS)
    assert readme.read_text(encoding="utf-8") == text


def test_the_headline_says_what_its_figures_are() -> None:
    said = headline(RESULTS)
    assert said.startswith("Simulated: ")
    assert "cost model `datasheet`" in said
    for name in re.findall(r"\(benchmarks/results/(\S+)\)", said):
        assert (RESULTS / name).exists()
    assert len(re.findall(r"^\|", said, re.MULTILINE)) == 2 + 8


def test_a_page_without_a_place_for_the_figures_is_an_error(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("# Nothing here\n", encoding="utf-8")
    with pytest.raises(BlendplanError, match="0 places for 'headline'"):
        fill_headline(readme, RESULTS)

"""The documentation as a site: it builds without a warning, and its links lead somewhere."""

import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

import blendplan
from blendplan.cli.group import COMMANDS

PROJECT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "docs", folder],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return folder


def test_every_page_of_the_docs_can_be_reached(site: Path) -> None:
    pages = {path.stem for path in (PROJECT / "docs").glob("*.md")}
    seen, waiting = {"index"}, ["index"]
    while waiting:
        text = (site / f"{waiting.pop()}.html").read_text()
        found = {name for name in pages if f'href="{name}.html' in text}
        waiting += found - seen
        seen |= found
    assert seen == pages


def test_links_within_the_site_lead_somewhere(site: Path) -> None:
    anchors: dict[Path, set[str]] = {}
    lost = []
    for page in site.glob("*.html"):
        for link in re.findall(r'(?:href|src)="([^"]+)"', page.read_text()):
            path, anchor = urldefrag(unescape(link))
            if re.match("[a-z]+:", link):
                continue
            target = (page.parent / unquote(path.partition("?")[0])).resolve() if path else page
            if target not in anchors and target.suffix == ".html" and target.is_file():
                anchors[target] = set(re.findall(r'\bid="([^"]+)"', target.read_text()))
            if not target.exists() or (anchor and anchor not in anchors.get(target, {anchor})):
                lost.append(f"{page.name}: {link}")
    assert lost == []


def test_the_reference_has_every_command_and_every_name(site: Path) -> None:
    commands = (site / "commands.html").read_text()
    assert all(f'id="blendplan-{name}"' in commands for name in COMMANDS)
    library = (site / "library.html").read_text()
    names = set(blendplan.__all__) - {"__version__"}
    assert {name for name in names if f'id="blendplan.{name}"' not in library} == set()

"""Pages in a real browser, without a window: what it complains of, and what it cuts off."""

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from html import escape, unescape
from pathlib import Path

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

# The page stands in a frame of the width asked for: a window has a least width of its own.
_HOST = """<!doctype html><meta charset="utf-8"><body style="margin:0">
<iframe style="border:0;width:{width}px;height:4000px" srcdoc="{page}"></iframe>
<script>
onload = () => {{
  const page = document.querySelector("iframe").contentDocument;
  const cut = [];
  for (const one of page.body.querySelectorAll("*")) {{
    const box = one.getBoundingClientRect();
    let scrolls = false;
    for (let up = one.parentElement; up; up = up.parentElement)
      scrolls ||= ["auto", "scroll"].includes(getComputedStyle(up).overflowX);
    if (!scrolls && box.width && (box.right > {width} + 1 || box.left < -1))
      cut.push(one.tagName + ": " + one.textContent.slice(0, 60));
  }}
  document.body.textContent = "<<" + JSON.stringify(
    {{cut, height: page.body.scrollHeight, text: page.body.innerText.length}}) + ">>";
}};
</script>"""


@dataclass(frozen=True)
class Seen:
    """A page as a browser shows it.

    Attributes:
        cut: elements that reach beyond its width, and no bar scrolls there.
        height: of the page in pixels.
        text: characters that can be read.
        complaints: lines of the browser's console.
    """

    cut: list[str]
    height: int
    text: int
    complaints: list[str]


def look_at(page: str, width: int, folder: Path) -> Seen:
    """Show a page at a width in pixels."""
    assert BROWSER is not None
    host = folder / f"host-{width}.html"
    host.write_text(_HOST.format(width=width, page=escape(page)), encoding="utf-8")
    shown = subprocess.run(
        [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--enable-logging=stderr",
            f"--user-data-dir={folder / 'profile'}",
            f"--window-size={max(width, 500)},1000",
            "--dump-dom",
            host.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = re.search("&lt;&lt;(.*)&gt;&gt;", shown.stdout)
    assert found, shown.stdout[-2000:]
    complaints = [line for line in shown.stderr.splitlines() if ":CONSOLE" in line]
    return Seen(**json.loads(unescape(found[1])), complaints=complaints)

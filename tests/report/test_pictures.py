"""Pictures of a comparison: the numbers behind them, the HTML file, the PNG files."""

import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.text import Text

from blendplan.errors import BlendplanError
from blendplan.planning.compare import Comparison, compare
from blendplan.report.charts import charts
from blendplan.report.charts_workload import density_colour
from blendplan.report.drawing import hint, house_style, new_figure, svg, time_axis
from blendplan.report.figures import Figures, draw_figures
from blendplan.report.figures_map import density_map
from blendplan.report.figures_png import check_png_folder, write_pngs
from blendplan.report.figures_tree import tree_blocks
from blendplan.report.html import html_report, write_html
from blendplan.report.quantities import duration, rounded, share
from blendplan.requests.read import read_requests
from blendplan.tree.annotate import annotate
from blendplan.tree.build import build_tree
from blendplan.tree.graph import to_networkx
from tests.cli.cli_runs import error_line, run, write_job

POLICIES = ("fcfs", "dfs", "blendserve", "blend")


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    job = write_job(tmp_path_factory.mktemp("job") / "job.jsonl", requests=300)
    requests = read_requests(job)
    return compare(requests, policies=POLICIES, gpu="l4", kv_tokens=8_000, overlap=2.0)


@pytest.fixture(scope="module")
def figures(compared: Comparison) -> Figures:
    return draw_figures(compared, "a <small> job & more", ("a note",))


def test_policies_carry_the_results_of_their_runs(compared: Comparison, figures: Figures) -> None:
    assert tuple(one.name for one in figures.policies) == POLICIES
    for one in figures.policies:
        run = compared.outcomes[one.name].run
        assert one.makespan_s == run.makespan_s
        assert one.prefix_sharing == run.prefix_sharing
        assert one.bound_ratio == pytest.approx(figures.bound_s / run.makespan_s, rel=1e-3)
        assert len(one.end_s) == len(one.compute_s) == len(one.memory_s) > 0
    assert figures.density == pytest.approx(compared.prepared.expected.root_density, rel=1e-9)


def test_kv_over_time_is_what_the_running_requests_hold(
    compared: Comparison, figures: Figures
) -> None:
    """Against a sum over requests, one moment at a time."""
    workload = compared.prepared.workload
    for one in figures.policies:
        run = compared.outcomes[one.name].run
        for moment in (0, 80, 160, 239):
            time_s = one.kv.time_s[moment]
            held = [0.0, 0.0]
            for request in range(len(workload)):
                start_s, finish_s = run.start_s[request], run.finish_s[request]
                if start_s <= time_s < finish_s:
                    done = (time_s - start_s) / (finish_s - start_s)
                    held[run.side[request]] += (
                        workload.prompt_tokens[request]
                        - run.cached_tokens[request]
                        + done * workload.output_tokens[request]
                    )
            fits = min(1.0, figures.kv_tokens / max(sum(held), 1.0))
            found = (one.kv.compute_tokens[moment], one.kv.memory_tokens[moment])
            assert found == pytest.approx([fits * tokens for tokens in held], abs=0.01)


def test_where_layers_keep_different_tokens_slots_are_shown(tmp_path: Path) -> None:
    """Against what each request holds, one moment at a time; lengths around the window's."""
    job = write_job(tmp_path / "job.jsonl", requests=60)
    result = compare(
        read_requests(job), policies=("dfs",), gpu="h200", model="gpt-oss-20b", kv_tokens=40_000
    )
    drawn = draw_figures(result)
    assert drawn.kv_unit == "slots"
    (one,) = drawn.policies
    run, workload = result.outcomes["dfs"].run, result.prepared.workload
    holding = result.prepared.expected.holding
    assert holding.windows
    for moment in (0, 60, 120, 200):
        time_s, held = one.kv.time_s[moment], 0.0
        for request in range(len(workload)):
            start_s, finish_s = run.start_s[request], run.finish_s[request]
            if start_s <= time_s < finish_s:
                done = (time_s - start_s) / (finish_s - start_s)
                context = workload.prompt_tokens[request] + done * workload.output_tokens[request]
                held += float(holding.held(context)) - holding.growth * run.cached_tokens[request]
        found = one.kv.compute_tokens[moment] + one.kv.memory_tokens[moment]
        assert found == pytest.approx(min(held, drawn.kv_tokens), rel=1e-6, abs=0.01)
    page = html_report(drawn)
    assert "KV cache, slots" in page and "KV cache over the run, slots" in page
    assert "A slot is" in page and "KV cache, tokens" not in page


def test_only_policies_with_a_partition_show_one(figures: Figures) -> None:
    shown = {one.name: len(one.kv.share_tokens) for one in figures.policies}
    assert shown["fcfs"] == shown["dfs"] == 0
    assert shown["blendserve"] == 240


@given(st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 5000)), min_size=1, max_size=40))
@settings(max_examples=50)
def test_every_request_is_in_one_cell_of_the_map(lengths: list[tuple[int, int]]) -> None:
    prompts, outputs = (np.array(column, np.int32) for column in zip(*lengths, strict=True))
    compute_s, memory_s = 2.0 * prompts.astype(np.float64), 3.0 * outputs.astype(np.float64)
    cells = density_map(prompts, outputs, compute_s, memory_s)
    assert cells.requests.sum() == len(lengths)
    for p, d in lengths:
        inside = (
            (cells.prompt_tokens <= p * (1 + 1e-9))
            & (p < cells.prompt_tokens * cells.factor * (1 + 1e-9))
            & (cells.output_tokens <= d * (1 + 1e-9))
            & (d < cells.output_tokens * cells.factor * (1 + 1e-9))
        )
        assert inside.any()
    assert (cells.density * cells.demand_s / (1 + cells.density)).sum() == pytest.approx(
        compute_s.sum()
    )


def test_the_tree_picture_shows_every_request_once_a_level(compared: Comparison) -> None:
    requests = compared.prepared.requests
    tree = build_tree(requests)
    n = len(requests)
    ones = np.ones(n)
    blocks = tree_blocks(tree, annotate(tree, requests.prompt_tokens, ones, ones))
    root, *others = blocks
    assert (root.level, root.left, root.width, root.requests) == (0, 0.0, 1.0, n)
    graph = to_networkx(tree)
    top = [block for block in others if block.level == 1]
    assert sum(block.nodes for block in top) == graph.out_degree(0)
    assert sum(block.requests for block in top) == n - len(graph.nodes[0]["requests"])
    for level in range(1, 4):
        row = [block for block in blocks if block.level == level]
        ends = [block.left + block.width for block in row]
        assert all(end <= 1 + 1e-9 for end in ends)
        # Side by side: none begins before the one to its left ends.
        assert all(b.left >= a - 1e-9 for a, b in zip(ends, row[1:], strict=False))


class Checker(HTMLParser):
    """Balanced tags, and whatever could need a network."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.outside: list[str] = []
        self.seen: list[str] = []
        self.ids: list[str] = []
        self.labels: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)
        for name, value in attrs:
            value = value or ""
            # Within a picture, one part may refer to another by its id.
            if name in ("src", "href", "xlink:href") and not value.startswith("#"):
                self.outside.append(value)
            self.outside += re.findall(r"url\((?!#)[^)]*", value)
            if name == "id":
                self.ids.append(value)
            if tag == "svg" and name == "aria-label":
                self.labels.append(value)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_report_is_one_file_that_needs_nothing_else(figures: Figures, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_html(figures, path)
    document = path.read_text(encoding="utf-8")
    checker = Checker()
    checker.feed(document)
    checker.close()
    assert checker.open == []
    assert checker.outside == []
    assert not {"script", "link", "img", "iframe"} & set(checker.seen)
    assert "@import" not in document
    assert len(checker.ids) == len(set(checker.ids))
    assert checker.seen.count("svg") == 6
    words = " ".join(checker.texts)
    assert "a <small> job & more" in words
    assert "a note" in words
    for sentence in figures.verdict.sentences:
        assert sentence in words
    assert "nan" not in document


def test_pictures_say_in_words_what_they_show(figures: Figures) -> None:
    checker = Checker()
    checker.feed(html_report(figures))
    throughput, sharing, steps, kv, density, _ = checker.labels
    for one in figures.policies:
        assert f"{one.name} {rounded(one.throughput_tokens_per_s)} tokens/s" in throughput
        assert f"{one.name} {share(one.prefix_sharing)}" in sharing
        for over_time in (steps, kv):
            assert f"{one.name} ends after {duration(one.makespan_s)}" in over_time
    assert "300 requests" in density
    # What the mouse shows: each bar, each box of the map, each block of the tree.
    words = " ".join(checker.texts)
    assert (
        f"{figures.policies[0].name}: {rounded(figures.policies[0].throughput_tokens_per_s)}"
        in words
    )
    assert len(re.findall(r"prompts from \d+", words)) == len(figures.map.requests)
    assert f"root, 300 requests, density {rounded(figures.tree[0].density)}" in words


def test_words_of_a_picture_are_escaped() -> None:
    with house_style():
        figure = new_figure(2, 1)
        hint(figure.text(0.5, 0.5, "<b> & $x_1$"), '"<i>" & more')
        element = svg(figure, "name", 'a "<label>" & more')
    checker = Checker()
    checker.feed(element)
    assert checker.open == []
    assert checker.labels == ['a "<label>" & more']
    assert "<b> & $x_1$" in checker.texts
    assert '"<i>" & more' in checker.texts
    assert not {"b", "i", "label"} & set(checker.seen)


def test_the_same_comparison_gives_the_same_bytes(
    figures: Figures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import matplotlib

    first = html_report(figures)
    pictures = [path.read_bytes() for path in write_pngs(figures, tmp_path)]
    # Neither the time nor the user's own style shows.
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "red", "svg.fonttype": "path"}):
        assert html_report(figures) == first
        assert [path.read_bytes() for path in write_pngs(figures, tmp_path)] == pictures
        assert matplotlib.rcParams["font.size"] == 20
    assert "1970" not in first


@pytest.mark.parametrize("policies", [1, 4])
def test_no_words_overlap_or_leave_their_picture(
    figures: Figures, policies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Text] = []
    monkeypatch.setattr(RendererAgg, "draw_text", lambda *_, mtext, **__: drawn.append(mtext))
    for chart in charts(replace(figures, policies=figures.policies[-policies:])):
        drawn.clear()
        with house_style():
            chart.figure.savefig(BytesIO(), format="png", dpi="figure")
            boxes = [(text.get_text(), text.get_window_extent()) for text in drawn]
        assert len(boxes) >= 3
        left, bottom, right, top = chart.figure.bbox.extents
        for words, box in boxes:
            assert left <= box.x0 and box.x1 <= right, (chart.name, words)
            assert bottom <= box.y0 and box.y1 <= top, (chart.name, words)
        for (words, box), (others, other) in combinations(boxes, 2):
            apart = not box.shrunk(0.98, 0.98).overlaps(other.shrunk(0.98, 0.98))
            assert apart, (chart.name, words, others)


def test_the_report_of_one_policy_and_of_one_request(tmp_path: Path) -> None:
    job = tmp_path / "one.jsonl"
    job.write_text('{"prompt_token_ids": [7], "output_tokens": 1}\n', encoding="utf-8")
    figures = draw_figures(compare(read_requests(job), policies=["fcfs"], gpu="l4"))
    checker = Checker()
    checker.feed(html_report(figures))
    assert checker.open == []
    assert write_pngs(figures, tmp_path / "png")


def test_png_files_are_pictures(figures: Figures, tmp_path: Path) -> None:
    paths = write_pngs(figures, tmp_path / "new" / "folder")
    assert [path.stem for path in paths] == [
        "throughput",
        "sharing",
        "steps",
        "kv",
        "density",
        "tree",
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_pictures_without_matplotlib_name_the_extra(
    monkeypatch: pytest.MonkeyPatch, figures: Figures, tmp_path: Path
) -> None:
    monkeypatch.setattr("blendplan.report.drawing.find_spec", lambda name: None)
    with pytest.raises(BlendplanError, match=r"blendplan\[plots\]"):
        check_png_folder(tmp_path)
    with pytest.raises(BlendplanError, match=r"blendplan\[plots\]"):
        write_html(figures, tmp_path / "report.html")
    job = write_job(tmp_path / "job.jsonl", 3)
    for option in ("--html", "--png"):
        result = run("compare", job, "--gpu", "l4", option, tmp_path / "out")
        assert result.exit_code == 1
        assert error_line(result).endswith("pip install 'blendplan[plots]'")
    assert [path.name for path in tmp_path.iterdir()] == ["job.jsonl"]


def test_png_into_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(BlendplanError, match="is a file"):
        check_png_folder(path)


def test_compare_writes_report_and_pictures(tmp_path: Path) -> None:
    job = write_job(tmp_path / "job.jsonl")
    html, png = tmp_path / "r.html", tmp_path / "png"
    result = run("compare", job, "--gpu", "a100-80g", "--html", html, "--png", png, "--json", "-q")
    assert result.exit_code == 0, result.stderr
    assert "job.jsonl" in html.read_text(encoding="utf-8")
    assert len(list(png.iterdir())) == 6
    assert "matplotlib.pyplot" not in sys.modules  # no window system is touched


@pytest.mark.parametrize(
    ("high_s", "last"), [(18_000.0, "5 h"), (300.0, "5 min"), (9.0, "8 s"), (0.01, "10 ms")]
)
def test_time_ticks_choose_their_unit(high_s: float, last: str) -> None:
    with house_style():
        axes = new_figure(4, 1).subplots()
        unit_s = time_axis(axes.xaxis, high_s)
        axes.set_xlim(0, high_s / unit_s)
        ticks = [tick for tick in axes.get_xticks() if 0 <= tick <= high_s / unit_s]
        assert ticks[0] == 0.0
        assert axes.xaxis.get_major_formatter().format_ticks(ticks)[-1] == last


def test_colours_go_from_orange_to_blue() -> None:
    def blueness(colour: str) -> int:
        return int(colour[5:7], 16) - int(colour[1:3], 16)

    shades = [blueness(density_colour(value)) for value in (0.0, 0.05, 0.3, 1.0, 4.0, 20.0)]
    assert shades == sorted(shades)
    assert density_colour(float("inf")) == density_colour(20.0)


def test_an_empty_series_draws_nothing(figures: Figures) -> None:
    nothing = np.empty(0)
    idle = replace(
        figures.policies[0], end_s=nothing, compute_s=nothing, memory_s=nothing, makespan_s=0.0
    )
    checker = Checker()
    checker.feed(html_report(replace(figures, policies=(idle,))))
    assert checker.open == []

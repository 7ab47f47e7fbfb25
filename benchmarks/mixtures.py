"""Mixed request sets under every policy, by what is known of the output lengths.

    python benchmarks/mixtures.py make -o DIR [--which 0,2]      request files
    python benchmarks/mixtures.py run --half tune -o FILE        simulate; continues FILE
    python benchmarks/mixtures.py table FILE [FILE ...]          what it comes to
    python benchmarks/mixtures.py changes OLD NEW                where two runs differ
    python benchmarks/mixtures.py page [FILE ...]                tables into docs/evaluation.md and
                                                                 README.md, and what they need of
                                                                 the files into results/

Mixtures 0 to 31 are drawn, the even ones to tune on, the odd ones to report; 100 to 103 are given
(see `mixture_recipes`). ``--data`` or ``BLENDPLAN_DATA`` names the folder of the traces. Quick
experiments: ``run --half tune --thin 4 --overlap 1 --knowledge known,sample,prior --jobs 2``.
"""

import argparse
import itertools
import json
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.mixture_page import FILE, fill_evaluation, fill_readme, write_results
from benchmarks.mixture_recipes import recipe, recipes
from benchmarks.mixture_runs import ANY, KNOWLEDGE, PLAIN, POLICY_NAMES, SEEDED, run_mixture
from benchmarks.mixture_sets import mixture, write_lines
from benchmarks.mixture_tables import changes, tables

from blendplan.errors import BlendplanError

Row = dict[str, Any]
Task = dict[str, Any]
PROJECT = Path(__file__).resolve().parents[1]
RESULTS = PROJECT / "benchmarks" / "results"
_KEYS = ("mixture", "overlap", "thin", "effort", "seed", "knowledge", "policy")


def main() -> None:
    """Make mixtures, run them, or sum up runs."""
    arguments = _parser().parse_args()
    if arguments.what == "table":
        rows = [row for path in arguments.results for row in read_rows(path)]
        print(tables(rows, markdown=arguments.markdown, each=arguments.each))
        return
    if arguments.what == "changes":
        before, after = map(read_rows, (arguments.before, arguments.after))
        print(changes(before, after, markdown=arguments.markdown))
        return
    if arguments.what == "page":
        if arguments.results:
            rows = [row for path in arguments.results for row in read_rows(path)]
            write_results(rows, RESULTS / FILE)
        fill_evaluation(PROJECT / "docs" / "evaluation.md", RESULTS)
        fill_readme(PROJECT / "README.md", RESULTS)
        return
    if arguments.data is None:
        sys.exit("error: give --data, the folder of the traces, or set BLENDPLAN_DATA")
    if arguments.what == "make":
        _make(arguments)
    else:
        _run(arguments)


def read_rows(path: Path) -> list[Row]:
    """The rows of a results file, none where there is no file yet."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]


def tasks(
    numbers: list[int],
    overlaps: list[float],
    knowledge: list[str],
    policies: list[str],
    *,
    seeds: Sequence[int] = (0,),
    **rest: Any,
) -> Iterator[Task]:
    """What to run: once what does not depend on the knowledge, or on chance in it."""
    plain = [name for name in policies if name in PLAIN]
    looking = [name for name in policies if name not in PLAIN]
    for number, overlap in itertools.product(numbers, overlaps):
        for kind, names in [(ANY, plain), *((kind, looking) for kind in knowledge)]:
            for seed in (seeds if kind in SEEDED else (0,)) if names else ():
                task = {"number": number, "overlap": overlap, "knowledge": kind, "seed": seed}
                yield task | {"policies": names} | rest


def missing(wanted: list[Task], rows: list[Row]) -> list[Task]:
    """The tasks without what the rows have already."""
    done = {tuple(row[key] for key in _KEYS) for row in rows}
    found = []
    for task in wanted:
        place = (task["number"], *(task[key] for key in _KEYS[1:-1]))
        names = [name for name in task["policies"] if (*place, name) not in done]
        if names:
            found.append(task | {"policies": names})
    return found


def _make(arguments: argparse.Namespace) -> None:
    arguments.output.mkdir(parents=True, exist_ok=True)
    for number in _numbers(arguments):
        mixed = mixture(recipe(number).thinned(arguments.thin), arguments.data)
        path = arguments.output / f"mixture{number}.jsonl"
        write_lines(mixed, path)
        print(f"{path}: {mixed.label}", flush=True)


def _run(arguments: argparse.Namespace) -> None:
    rest = {"thin": arguments.thin, "effort": arguments.effort}
    seeds = [int(seed) for seed in arguments.seed]
    wanted = list(
        tasks(
            _numbers(arguments),
            [float(overlap) for overlap in arguments.overlap],
            _among(arguments.knowledge, KNOWLEDGE, "knowledge"),
            _among(arguments.policies, POLICY_NAMES, "policy"),
            seeds=seeds,
            **rest,
        )
    )
    left = missing(wanted, read_rows(arguments.output))
    with (
        arguments.output.open("a", encoding="utf-8") as file,
        ProcessPoolExecutor(arguments.jobs, get_context("spawn")) as pool,
    ):
        running = {pool.submit(_rows_of, task, arguments.data): task for task in left}
        failed = 0
        for number, future in enumerate(as_completed(running), 1):
            try:
                rows = future.result()
            except (BlendplanError, ArithmeticError, LookupError, TypeError, ValueError) as error:
                # The others are worth having.
                failed += 1
                print(f"{running[future]}: {error!r}", file=sys.stderr, flush=True)
                continue
            for row in rows:
                file.write(json.dumps(row) + "\n")
                print(f"[{number}/{len(left)}] {_line(row)}", file=sys.stderr, flush=True)
            file.flush()
    if failed:
        sys.exit(f"error: {failed} of {len(left)} parts failed")


def _rows_of(task: Task, data: Path) -> list[Row]:
    number = task["number"]
    rest = {key: value for key, value in task.items() if key != "number"}
    return list(run_mixture(number, data, **rest))


def _line(row: Row) -> str:
    return (
        f"{row['mixture']} q={row['overlap']:g} {row['knowledge']} {row['policy']}: "
        f"{100 * row['share']:.1f} % of the bound, {row['steps']:,} steps, "
        f"{row['preemptions']:,} preemptions, {row['wall_s']:.0f} s"
    )


def _numbers(arguments: argparse.Namespace) -> list[int]:
    if arguments.which is not None:
        return [recipe(int(number)).number for number in arguments.which]
    return [one.number for one in recipes(arguments.half)]


def _among(names: list[str], right: tuple[str, ...], what: str) -> list[str]:
    for name in names:
        if name not in right:
            sys.exit(f"error: no {what} {name!r}; give some of {', '.join(right)}")
    return names


def _listed(text: str) -> list[str]:
    return text.split(",")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    commands = parser.add_subparsers(dest="what", required=True)
    data = os.environ.get("BLENDPLAN_DATA")
    for name in ("make", "run"):
        one = commands.add_parser(name)
        one.add_argument("--data", type=Path, default=data and Path(data), metavar="DIR")
        one.add_argument("-o", "--output", type=Path, required=True)
        one.add_argument("--which", type=_listed, metavar="N,N", help="numbers of mixtures")
        one.add_argument("--half", choices=["tune", "report", "all", "given"], default="tune")
        one.add_argument("--thin", type=int, default=1, help="take so many times fewer requests")
        if name == "run":
            one.add_argument("--overlap", type=_listed, default=["1", "2"], metavar="Q,Q")
            one.add_argument("--policies", type=_listed, default=list(POLICY_NAMES))
            one.add_argument("--knowledge", type=_listed, default=list(KNOWLEDGE[:5]))
            one.add_argument("--effort", type=int, default=1)
            one.add_argument(
                "--seed",
                type=_listed,
                default=["0"],
                metavar="N,N",
                help="of the sample and of the noise",
            )
            one.add_argument("--jobs", type=int, default=1, help="worker processes")
    table = commands.add_parser("table")
    table.add_argument("results", type=Path, nargs="+")
    table.add_argument("--markdown", action="store_true")
    table.add_argument("--each", action="store_true", help="every mixture too")
    page = commands.add_parser("page")
    page.add_argument("results", type=Path, nargs="*", help="none: what results/ has already")
    between = commands.add_parser("changes")
    between.add_argument("before", type=Path)
    between.add_argument("after", type=Path)
    between.add_argument("--markdown", action="store_true")
    return parser


if __name__ == "__main__":
    try:
        main()
    except BlendplanError as error:
        sys.exit(f"error: {error}")

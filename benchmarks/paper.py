"""The paper's evaluation again: its workloads and tables from real traces, under one cost model.

    python benchmarks/paper.py figure7 --data DIR        one table or figure
    python benchmarks/paper.py all --data DIR            all of them
    python benchmarks/paper.py page                      their tables into docs/evaluation.md,
                                                         the headline figures into README.md

Results go to benchmarks/results/NAME.json. ``DIR`` holds the traces; ``BLENDPLAN_DATA`` names it
otherwise. Makespans and ratios are the same on every machine; planning times are this machine's.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.headline import fill_headline
from benchmarks.paper_experiments import EXPERIMENTS
from benchmarks.paper_tables import TABLES, fill_page

from blendplan.errors import BlendplanError
from blendplan.whole_file import replacing

RESULTS = Path(__file__).resolve().parent / "results"
PROJECT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Run experiments, or print what they found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("what", choices=[*EXPERIMENTS, "all", "page"], help="table or figure")
    parser.add_argument("--data", type=Path, default=os.environ.get("BLENDPLAN_DATA"))
    parser.add_argument("--requests", type=int, help="per workload, instead of the default")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    if arguments.what == "page":
        fill_page(PROJECT / "docs" / "evaluation.md", arguments.results)
        fill_headline(PROJECT / "README.md", arguments.results)
        return
    if arguments.data is None:
        parser.error("give --data DIR, the folder with the traces, or set BLENDPLAN_DATA")
    arguments.results.mkdir(exist_ok=True)
    names = EXPERIMENTS if arguments.what == "all" else [arguments.what]
    for name in names:
        started = time.perf_counter()
        found = EXPERIMENTS[name](Path(arguments.data), arguments.requests)
        with replacing(arguments.results / f"{name}.json") as path:
            path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(f"{name}: {time.perf_counter() - started:.0f} s")
        for table in TABLES.get(name, {}).values():
            print(table(found), end="\n\n")


if __name__ == "__main__":
    try:
        main()
    except BlendplanError as error:
        sys.exit(f"error: {error}")

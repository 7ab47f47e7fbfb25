"""Measure many cases within a limit, and write them as a table."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from blendplan.cost.calibration.operator_fits import LEAST_ROWS
from blendplan.whole_file import replacing

Case = TypeVar("Case")
Row = dict[str, Any]
TELL_EVERY_S = 10.0


class Clock:
    """A limit on the time of a section, and its progress on standard output."""

    def __init__(self, name: str, limit_s: float, total: int) -> None:
        self.name, self.limit_s, self.total = name, limit_s, total
        self.started = self.told = time.perf_counter()
        self.done = 0

    def next(self) -> bool:
        """Count one more measurement; False once the limit is over."""
        now = time.perf_counter()
        if now - self.told > TELL_EVERY_S:
            print(f"{self.name}: {self.done}/{self.total}", flush=True)
            self.told = now
        self.done += 1
        return now - self.started < self.limit_s


def shuffled(cases: Iterable[Case]) -> list[Case]:
    """The same in an order that is random, but the same each time.

    A section that its limit cuts short leaves a fair sample of its cases.
    """
    found = list(cases)
    random.Random(0).shuffle(found)
    return found


def measured(
    name: str, limit_s: float, cases: Iterable[Case], row_of: Callable[[Case], Row]
) -> list[Row]:
    """Rows of as many cases as the limit allows, in random order.

    Args:
        name: of the section.
        limit_s: seconds.
        cases: what to measure.
        row_of: measures one; a case that it refuses with `RuntimeError`, for want of memory or of
            a kernel, is left out, and the reason printed.

    Raises:
        RuntimeError: every case was refused.
    """
    chosen = shuffled(cases)
    clock = Clock(name, limit_s, len(chosen))
    rows: list[Row] = []
    refused: Counter[str] = Counter()
    for case in chosen:
        if not clock.next():
            break
        try:
            rows.append(row_of(case))
        except RuntimeError as error:
            refused[str(error).strip().splitlines()[0]] += 1
    for reason, count in refused.items():
        print(f"{name}: {count} cases refused: {reason}", flush=True)
    if refused and not rows:
        raise RuntimeError(f"all cases were refused: {next(iter(refused))}")
    return rows


def write_rows(rows: Sequence[Mapping[str, object]], path: Path) -> None:
    """Write a table with one row per measurement, times as float32; tell what is in it."""
    table = pa.Table.from_pylist([dict(row) for row in rows])
    if "time_ms" in table.column_names:
        index = table.column_names.index("time_ms")
        table = table.set_column(index, "time_ms", table["time_ms"].cast(pa.float32()))
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    print(f"{path.name}: {len(rows)} rows", flush=True)
    for kernel, count in Counter(row.get("kernel") for row in rows).items():
        if kernel is not None and count < LEAST_ROWS:
            print(
                f"{path.name}: {kernel} has {count} rows, of which a fit needs {LEAST_ROWS}; "
                "measure again with more --seconds",
                flush=True,
            )

"""`Blocks`: a request file of any kind as blocks of columns, read ahead on other cores."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pyarrow as pa

from blendplan.requests.collect import Block
from blendplan.requests.lines import Reading, count_lines, first_lines, read_lines
from blendplan.requests.rows import read_rows
from blendplan.requests.shape import Shape
from blendplan.requests.source import Source
from blendplan.requests.source_columns import type_in_lines
from blendplan.requests.tables import OpenTable, open_table


class Blocks:
    """The good requests of an open file, block by block; iterated once, from front to back.

    Args:
        source: the file.
        reading: how.
        most: lines or rows to look at, None for all.

    Attributes:
        expected_tokens, expected_body_bytes: hints of how much there is in all, 0 for none.
        rows: lines or rows of the file up to here, bad and blank ones included.
        columns: of a table, those that hold prompts as token ids aside; None for lines.

    Raises:
        BlendplanError: the file cannot be read, or with a reading that fails, a bad request.
    """

    def __init__(self, source: Source, reading: Reading, most: int | None = None) -> None:
        self._source = source
        self._most = most
        self._reading = reading
        self.rows = 0
        self._table = open_table(source, reading.shape) if source.is_table else None
        self.columns = _carried(self._table, reading.shape)
        plain_bytes = source.total_bytes if source.kind == "jsonl" else 0
        self.expected_tokens = plain_bytes // 4
        self.expected_body_bytes = plain_bytes
        if self._table is not None:
            self.expected_tokens, self.expected_body_bytes = self._table.expected_tokens, 0

    def __iter__(self) -> Iterator[Block]:
        return self._of_lines() if self._table is None else self._of_table()

    def _of_lines(self) -> Iterator[Block]:
        waiting: deque[Future[Block | None]] = deque()
        # The file is read, decompressed and hashed on one core, and parsed on another.
        with ThreadPoolExecutor(1) as parser:
            for text in self._source.line_blocks():
                if self._most is not None:
                    text = first_lines(text, self._most - self.rows)
                    if not text:
                        break
                waiting.append(parser.submit(read_lines, text, self.rows, self._reading))
                # A last line without its end is one too.
                self.rows += count_lines(text) + (not text.endswith(b"\n"))
                if len(waiting) > 1 and (block := waiting.popleft().result()) is not None:
                    yield block
            while waiting:
                if (block := waiting.popleft().result()) is not None:
                    yield block

    def _of_table(self) -> Iterator[Block]:
        # One thread hashes the file, one decodes the next batch, and the caller's does the rest.
        assert self._table is not None
        with ThreadPoolExecutor(2) as workers:
            digest = workers.submit(self._source.sha256)
            batches = self._counted(_ahead(self._table.batches, workers))
            table = replace(self._table, batches=batches)
            for block in read_rows(table, self._source.name, self._reading):
                yield block
                if table.rows:
                    done = self._source.total_bytes * int(block.source_row[-1] + 1) // table.rows
                    self._source.advance(done)
            digest.result()

    def _counted(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if self._most is not None:
                batch = batch.slice(0, self._most - self.rows)
                if not batch.num_rows:
                    return
            self.rows += batch.num_rows
            yield batch


def _carried(table: OpenTable | None, shape: Shape) -> pa.Schema | None:
    """What of a table is carried to its results, by types that fit how lines have it."""
    if table is None:
        return None
    kept = [field for field in table.schema if field.name != "prompt_token_ids"]
    if not shape.makes_prompt:  # rows are requests, whose fields are JSON as any
        kept = [field.with_type(type_in_lines(field.type)) for field in kept]
    return pa.schema(kept) if kept else None


def _ahead(batches: Iterator[pa.RecordBatch], workers: ThreadPoolExecutor) -> Iterator[Any]:
    """The batches, the next one already being made while one is in use."""
    coming = workers.submit(next, batches, None)
    while (batch := coming.result()) is not None:
        coming = workers.submit(next, batches, None)
        yield batch

"""Small request files in several pieces, and the same in one."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

SMALL: dict[str, Any] = {
    "gpu": "l4",
    "kv_tokens": 4_000,
    "max_num_seqs": 16,
    "overlap": 2.0,
    "effort": 0,
}


def lines(count: int, seed: int = 5, *, ids: bool = True) -> list[dict[str, Any]]:
    """Requests of families with a prefix that all of them share, one below it, and some alone."""
    rng = np.random.default_rng(seed)
    common = rng.integers(0, 1000, 40).tolist()
    families = rng.integers(0, 1000, (9, 30)).tolist()
    made = []
    for row in range(count):
        family = int(rng.integers(0, 12))
        shared = common + families[family] if family < 9 else []
        prompt = [*shared, *rng.integers(0, 50, int(rng.integers(1, 30))).tolist()]
        output = int(rng.integers(1, 30)) + (200 if row % 12 == 0 else 0)
        line = {"prompt_token_ids": prompt, "output_tokens": output}
        made.append({"id": f"r{row}", **line} if ids else line)
    return made


def write_lines(path: Path, some: Sequence[dict[str, Any]]) -> Path:
    """A JSONL file."""
    path.write_text("".join(json.dumps(line) + "\n" for line in some))
    return path


def write_files(folder: Path, some: Sequence[dict[str, Any]], files: int) -> Path:
    """The same in a folder of JSONL files, in their order."""
    folder.mkdir()
    for number, part in enumerate(np.array_split(np.arange(len(some)), files)):
        write_lines(folder / f"part-{number:02d}.jsonl", [some[row] for row in part])
    return folder

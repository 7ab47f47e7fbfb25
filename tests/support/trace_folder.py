"""A folder of small made-up traces, under the names of the real ones."""

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SUBJECTS = {"algebra": 40, "law": 75, "ethics": 16}


def write_traces(folder: Path) -> Path:
    """Write traces of some hundred rows; returns the folder."""
    rng = np.random.default_rng(7)
    _lengths(folder / "burstgpt_sample_8000.parquet", rng, 300, prompt=200, output=20)
    _lengths(folder / "bwb_lengths.parquet", rng, 200, prompt=300, output=4000)
    questions = {
        "subject": rng.choice(list(SUBJECTS), 150),
        "question_llama2_tokens": rng.integers(5, 60, 150).astype(np.int32),
    }
    pq.write_table(pa.table(questions), folder / "mmlu_test_questions.parquet")
    with gzip.open(folder / "mmlu_5shot_prefixes.jsonl.gz", "wt", encoding="utf-8") as lines:
        for subject, tokens in SUBJECTS.items():
            lines.write(json.dumps({"subject": subject, "prefix_llama2_tokens": tokens}) + "\n")
    clips = {"indicative_clip_frame_counts": {"values": [300, 100, 150, 120, 180]}}
    (folder / "openvid_facts.json").write_text(json.dumps(clips), encoding="utf-8")
    return folder


def _lengths(path: Path, rng: np.random.Generator, rows: int, prompt: int, output: int) -> None:
    columns = {
        "prompt_tokens": 1 + rng.poisson(prompt * rng.random(rows)).astype(np.int32),
        "output_tokens": 1 + rng.poisson(output * rng.random(rows)).astype(np.int32),
    }
    pq.write_table(pa.table(columns), path)

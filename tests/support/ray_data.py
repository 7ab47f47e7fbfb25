"""A pipeline of Ray Data, in a process of its own: prints the rows that come out, as JSON."""

import json
import sys
from pathlib import Path

import ray

import blendplan.ray


def main() -> None:
    """Answer 60 prompts that stand under another name, beside other columns."""
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    rows = [
        {"question": [7, 8, 9, *range(20, 20 + row % 5)], "max_tokens": 5 + row % 3, "label": row}
        for row in range(60)
    ]
    limits = {"kv_tokens": 2_000, "max_num_seqs": 16, "max_num_batched_tokens": 256, "effort": 0}
    answered = blendplan.ray.replay(
        ray.data.from_items(rows),
        "sim",
        gpu="l4",
        model="llama-3.1-8b",
        folder=Path(sys.argv[1]),
        prompt_column="question",
        replicas=2,
        planning=limits,
    )
    print(json.dumps(answered.take_all()))


if __name__ == "__main__":
    main()

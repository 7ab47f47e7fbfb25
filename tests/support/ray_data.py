"""A pipeline of Ray Data, in a process of its own: prints the rows that come out, as JSON."""

import json
import sys
from pathlib import Path
from typing import Any

import ray

import blendplan.ray
from blendplan.errors import BlendplanError


def main() -> None:
    """Answer 60 prompts that stand under another name, beside other columns."""
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    rows = [
        {"question": [7, 8, 9, *range(20, 20 + row % 5)], "max_tokens": 5 + row % 3, "label": row}
        for row in range(60)
    ]
    limits = {"kv_tokens": 2_000, "max_num_seqs": 16, "max_num_batched_tokens": 256, "effort": 0}

    def answered(rows: list[dict[str, Any]], **options: Any) -> list[dict[str, Any]]:
        dataset = blendplan.ray.replay(
            ray.data.from_items(rows),
            "sim",
            gpu="l4",
            model=options.pop("model", "llama-3.1-8b"),
            folder=options.pop("folder", Path(sys.argv[1])),
            **{"prompt_column": "question", "replicas": 2, "planning": limits, **options},
        )
        return dataset.take_all()

    first = answered(rows)
    refused = []
    changed = [*rows[:-1], rows[-1] | {"label": 7}]
    new, file = Path(sys.argv[1]) / "new", Path(sys.argv[1]) / "rows.parquet"
    for others, options in (
        (rows[:10], {}),
        (changed, {}),
        (rows, {"replicas_max": 1}),
        (rows, {"prompt_column": "label", "model": "llama-3.1-70b"}),
        (rows, {"planning": limits | {"nonsense": 1}}),
        (rows, {"prompt_column": "nope", "folder": new}),
        (rows, {"folder": file}),
    ):
        try:
            answered(others, **options)
        except BlendplanError as error:
            refused.append(str(error))
    assert not list(new.iterdir())
    print(json.dumps({"rows": first, "again": answered(rows) == first, "refused": refused}))


if __name__ == "__main__":
    main()

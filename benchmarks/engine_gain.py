"""What an order gains on the real vLLM, on a CPU with a small KV cache; prints JSON.

A job of exams with shared heads and short answers, and of chats with long answers, is planned in
input order, depth-first and blended, and replayed with random weights. A CPU does not overlap
compute and memory work; what shows is the prefix cache, preemptions and how full steps are.

    .venv-vllm/bin/python benchmarks/engine_gain.py [--requests N] [--repeats K]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from blendplan import plan, read_requests, replay

KV_TOKENS, BLOCK = 6144, 32
ARGUMENTS = {
    "load_format": "dummy",
    "enforce_eager": True,
    "block_size": BLOCK,
    "max_model_len": 2048,
    "num_gpu_blocks_override": KV_TOKENS // BLOCK + 1,  # one is a placeholder
    "gpu_memory_utilization": 0.2,
}


def write_job(path: Path, requests: int) -> None:
    """Half exams of five families, half chats, shuffled; all lengths known."""
    rng = np.random.default_rng(0)
    heads = [rng.integers(3, 4000, 400).tolist() for _ in range(5)]
    lines = []
    for row in range(requests):
        if row % 2:
            prompt = heads[row // 2 % 5] + rng.integers(3, 4000, 40).tolist()
            length = int(rng.integers(1, 8))
        else:
            prompt = rng.integers(3, 4000, int(rng.integers(20, 200))).tolist()
            length = int(np.clip(rng.lognormal(4.8, 0.7), 10, 800))
        lines.append({"prompt_token_ids": prompt, "output_tokens": length})
    order = rng.permutation(len(lines)).tolist()
    path.write_text("".join(json.dumps(lines[row]) + "\n" for row in order))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    os.environ.update({"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"})
    os.environ.update({"VLLM_CPU_OMP_THREADS_BIND": "nobind", "HF_HUB_OFFLINE": "1"})
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ("fcfs", "dfs", "blend")}
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        write_job(at / "job.jsonl", asked.requests)
        maker = Path(__file__).parent.parent / "examples" / "tiny_model.py"
        subprocess.run([sys.executable, maker, at / "job.jsonl", "-o", at / "model"], check=True)
        requests = read_requests(at / "job.jsonl")
        plans = {
            name: plan(
                requests,
                gpu="l4",
                model=str(at / "model"),
                policy=name,
                kv_tokens=KV_TOKENS,
                block_size=BLOCK,
                max_num_seqs=32,
                max_num_batched_tokens=256,
            )
            for name in found
        }
        for repeat in range(asked.repeats):
            for name, made in plans.items():
                done = replay(
                    made,
                    "vllm",
                    at / f"{name}.{repeat}.jsonl",
                    model=str(at / "model"),
                    engine_args=ARGUMENTS,
                ).tally
                found[name].append(
                    {
                        "seconds": round(done.elapsed_s, 2),
                        "steps": done.steps,
                        "preemptions": done.preemptions,
                        "cached_tokens": done.cached_tokens,
                        "answered": done.finished,
                    }
                )
    print(json.dumps({"requests": asked.requests, **found}))


if __name__ == "__main__":
    main()

"""The calibration loop closed on a real engine: record, calibrate, predict, run, compare.

    python benchmarks/calibrate_loop.py --bin .venv-vllm/bin [--model tiny] [--repeats 3] [-o FILE]

BIN is an environment with blendplan and vLLM (`make engines` makes one for a CPU). A calibration
job is replayed on vLLM with a step log, and `blendplan calibrate --steps` fits a profile to that
log alone. Then each of several jobs that the calibration has not seen is planned with the profile
and the plan replayed on vLLM. A row compares the makespan that the plan predicts with the one that
the replay takes. The calibration is repeated after each job: where other work shares the machine,
its speed drifts, and a profile of the two calibrations around a job (``around``) shows what is
left without the drift. Jobs differ between repeats; models are filled with random numbers. Prints
JSON.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 4096,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "torch_dtype": "bfloat16",
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MODELS: dict[str, dict[str, Any]] = {
    "tiny": {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
    },
    # Its steps are arithmetic and not only the engine's own work.
    "small": {
        "hidden_size": 512,
        "intermediate_size": 1536,
        "num_hidden_layers": 6,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 64,
    },
}
# Requests of each job; `small` takes a fraction of them.
FRACTION = {"tiny": 1.0, "small": 0.15}
SEQUENCES, TOKENS, BLOCK, KV_TOKENS = 32, 512, 32, 65_536
# Job: requests, shortest and longest prompt, shortest and longest output, policy.
# The calibration runs through three kinds of steps one after the other: what a log does not tell
# apart, the fit cannot either.
CALIBRATION = (
    (150, 50, 1500, 1, 3, "fcfs"),
    (500, 1, 1500, 1, 300, "fcfs"),
    (100, 1, 32, 50, 300, "fcfs"),
)
JOBS = {
    "prefill heavy": (400, 300, 1800, 1, 8, "fcfs"),
    "decode heavy": (300, 4, 64, 100, 500, "fcfs"),
    "mixed, depth first": (500, 8, 1000, 2, 400, "dfs"),
    "mixed, blend": (500, 8, 1000, 2, 400, "blend"),
    "common prefixes": (600, 200, 600, 4, 120, "dfs"),
}
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", type=Path, required=True, help="environment's bin folder")
    parser.add_argument("--model", choices=MODELS, default="tiny")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="seed of the first repeat")
    parser.add_argument("-o", "--output", type=Path, help="also write the JSON here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="blendplan-") as folder:
        seeds = range(arguments.first, arguments.first + arguments.repeats)
        loop = Loop(arguments.bin, arguments.model, Path(folder))
        rows = [row for seed in seeds for row in loop.run(seed)]
    found = {
        "engine": "vllm on a CPU, one thread",
        "model": arguments.model,
        "repeats": arguments.repeats,
        "rows": rows,
        "summary": summary(rows),
    }
    text = json.dumps(found, indent=1)
    if arguments.output:
        arguments.output.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


class Loop:
    """The loop for one model, in a folder of its own."""

    def __init__(self, place: Path, model: str, folder: Path) -> None:
        self.blendplan = (place / "blendplan").absolute()
        self.fraction = FRACTION[model]
        self.folder = folder
        self.model = folder / model
        self.model.mkdir()
        (self.model / "config.json").write_text(json.dumps(LLAMA | MODELS[model]))

    def run(self, seed: int) -> list[dict[str, Any]]:
        """Calibrate on one job, predict and run the others."""
        before = self.calibrate(seed)
        rows = []
        for place, (name, job) in enumerate(JOBS.items()):
            requests = self.requests(name, job, 1000 * seed + place)
            planned, plan = self.plan(requests, self.fit(before), job[-1])
            run = self.replay(plan)
            after = self.calibrate(seed)
            around, _ = self.plan(requests, self.fit(before, after), job[-1])
            before = after
            measured_s = run["makespan_s"]
            row = {
                "seed": seed,
                "job": name,
                "requests": run["requests"],
                "planned_steps": planned["steps"],
                "steps": run["steps"],
                "predicted_s": round(planned["makespan_s"], 3),
                "predicted_around_s": round(around["makespan_s"], 3),
                "measured_s": round(measured_s, 3),
                "error_percent": round(100 * (planned["makespan_s"] / measured_s - 1), 2),
                "error_around_percent": round(100 * (around["makespan_s"] / measured_s - 1), 2),
            }
            print(row, file=sys.stderr, flush=True)
            rows.append(row)
        return rows

    def calibrate(self, seed: int) -> pa.Table:
        """The steps of the calibration job."""
        parts = [
            self.requests(f"calibration {part}", job, 1000 * seed + 500 + part)
            for part, job in enumerate(CALIBRATION)
        ]
        requests = self.folder / "calibration.jsonl"
        requests.write_text("".join(part.read_text() for part in parts))
        # Prices are not known yet, and do not matter for input order.
        _, plan = self.plan(requests, "a100-80g", "fcfs")
        self.replay(plan)
        return pq.read_table(self.folder / "steps.parquet")

    def fit(self, *logs: pa.Table) -> Path:
        """A profile of some logs, one after the other."""
        log, profile = self.folder / "log.parquet", self.folder / "profile.toml"
        pq.write_table(pa.concat_tables(logs), log)
        words = ("--steps", log, "--model", self.model, "--gpu", "a100-80g", "-o", profile)
        self.call("calibrate", *words)
        return profile

    def requests(self, name: str, job: Sequence[Any], seed: int) -> Path:
        """A request file of random tokens; lengths are log-uniform within the job's limits."""
        count, *limits, _ = job
        count = max(20, int(count * self.fraction))
        rng = np.random.default_rng(seed)
        prompts, outputs = (
            np.exp(rng.uniform(math.log(least), math.log(most + 1), count)).astype(int)
            for least, most in (limits[:2], limits[2:])
        )
        families = rng.integers(3, 4096, (5, 4096)) if name == "common prefixes" else None
        path = self.folder / f"{name.replace(' ', '-')}.jsonl"
        with path.open("w") as file:
            for prompt, output in zip(prompts.tolist(), outputs.tolist(), strict=True):
                ids = rng.integers(3, 4096, prompt)
                if families is not None:
                    shared = prompt * 3 // 4
                    ids[:shared] = families[rng.integers(len(families)), :shared]
                line = {"prompt_token_ids": ids.tolist(), "output_tokens": output}
                file.write(json.dumps(line) + "\n")
        return path

    def plan(self, requests: Path, gpu: str | Path, policy: str) -> tuple[dict[str, Any], Path]:
        """A plan for the engine that `replay` starts, and what it predicts."""
        output = self.folder / "plan.arrow"
        limits = {
            "--kv-tokens": KV_TOKENS,
            "--max-num-seqs": SEQUENCES,
            "--max-num-batched-tokens": TOKENS,
            "--block-size": BLOCK,
        }
        words = [word for pair in limits.items() for word in pair]
        where = ("--gpu", gpu, "--model", self.model, "--policy", policy)
        found = self.call("plan", requests, *where, *words, "-o", output)
        return found["predicted"], output

    def replay(self, plan: Path) -> dict[str, Any]:
        """Run a plan on vLLM and log its steps."""
        arguments = {
            "load_format": "dummy",
            "enforce_eager": "true",
            "async_scheduling": "false",
            "skip_tokenizer_init": "true",
            "block_size": BLOCK,
            "max_model_len": 2560,
            # vLLM keeps one block for itself.
            "num_gpu_blocks_override": KV_TOKENS // BLOCK + 1,
        }
        words = [
            word for pair in arguments.items() for word in ("--engine-arg", f"{pair[0]}={pair[1]}")
        ]
        results, log = self.folder / "results.jsonl", self.folder / "steps.parquet"
        results.unlink(missing_ok=True)
        where = ("--engine", "vllm", "--model", self.model, "-o", results, "--step-log", log)
        return self.call("replay", plan, *where, *words)

    def call(self, *words: object) -> dict[str, Any]:
        """A blendplan command's JSON answer."""
        done = subprocess.run(
            [str(self.blendplan), *map(str, words), "--json", "--quiet"],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **ENVIRONMENT},
        )
        if done.returncode:
            sys.exit(f"blendplan {words[0]} failed:\n{done.stderr[-2000:]}")
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Errors of each job over the repeats, in percent, and over all jobs."""
    found: dict[str, Any] = {}
    for name in [*JOBS, "all"]:
        chosen = [row for row in rows if name in (row["job"], "all")]
        if not chosen:
            continue
        found[name] = {"same_steps": all(row["steps"] == row["planned_steps"] for row in chosen)}
        for key in ("error_percent", "error_around_percent"):
            errors = [row[key] for row in chosen]
            found[name][key] = {
                "mean": round(statistics.fmean(errors), 2),
                "least": min(errors),
                "most": max(errors),
                "mean_absolute": round(statistics.fmean(map(abs, errors)), 2),
                "median_absolute": round(statistics.median(map(abs, errors)), 2),
            }
    return found


if __name__ == "__main__":
    sys.exit(main())

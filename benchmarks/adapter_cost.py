"""What a replay on vLLM costs beside vLLM's own batch runner; prints JSON.

Both run the same requests in the same order with the same limits, on a CPU with a tiny random
model. A few requests and many are run with each, in turn; the difference is the cost of those
between, without the start of the engine. CPU is that of all processes.

    .venv-vllm/bin/python benchmarks/adapter_cost.py [--requests N] [--repeats K]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import psutil  # type: ignore[import-untyped]

FEW = 50
LIMITS = {"max_num_seqs": 64, "max_num_batched_tokens": 2048, "max_model_len": 1024}
OWN = {"load_format": "dummy", "enforce_eager": True, "block_size": 32, "served_model_name": "m"}
# Room for everything, so that memory decides nothing.
OWN |= {"num_gpu_blocks_override": 3000, "gpu_memory_utilization": 0.2}


def write_job(path: Path, requests: int) -> None:
    """Chats of a few families that share a beginning."""
    with path.open("w") as file:
        for row in range(requests):
            words = f"family {row % 7} asks " * 20 + f"for number {row}"
            body = {
                "model": "m",
                "messages": [{"role": "user", "content": words}],
                "max_tokens": 16,
                "ignore_eos": True,
                "temperature": 0,
            }
            line = {"custom_id": f"r{row}", "method": "POST", "url": "/v1/chat/completions"}
            file.write(json.dumps({**line, "body": body}) + "\n")


def run(command: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds of a command and all processes that it starts."""
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    root, spent = psutil.Process(process.pid), dict[int, float]()
    while process.poll() is None:
        for one in [root, *root.children(recursive=True)]:
            try:
                times = one.cpu_times()
            except psutil.Error:
                continue
            spent[one.pid] = times.user + times.system
        time.sleep(0.05)
    assert process.stderr is not None
    said = process.stderr.read().decode(errors="replace")
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}\n{said[-3000:]}")
    return time.monotonic() - started, sum(spent.values())


def flags(options: dict[str, object]) -> list[str]:
    """Arguments by name as words of vLLM's command line."""
    words = []
    for name, value in options.items():
        words += ["--" + name.replace("_", "-")] + ([] if value is True else [str(value)])
    return words


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    os.environ.update({"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"})
    os.environ.update({"VLLM_CPU_OMP_THREADS_BIND": "nobind", "HF_HUB_OFFLINE": "1"})
    python, own = sys.executable, flags(OWN | {name: LIMITS[name] for name in LIMITS})
    found: dict[str, list[tuple[float, float]]] = {"batch runner": [], "replay": []}
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        sizes = (FEW, FEW + asked.requests)
        write_job(at / "all.jsonl", sizes[-1])
        maker = Path(__file__).parent.parent / "examples" / "tiny_model.py"
        subprocess.run([python, maker, at / "all.jsonl", "-o", at / "model"], check=True)
        blendplan = [python, "-m", "blendplan"]
        for size in sizes:
            write_job(at / f"{size}.jsonl", size)
            limits = {key: LIMITS[key] for key in ("max_num_seqs", "max_num_batched_tokens")}
            plan = [*blendplan, "plan", f"{at}/{size}.jsonl", "--gpu", "l4", "--policy", "dfs"]
            plan += ["--model", f"{at}/model", "--kv-tokens", "95968", "--block-size", "32"]
            run([*plan, *flags(dict(limits)), "-o", f"{at}/{size}.arrow"])
            run([*blendplan, "export", f"{at}/{size}.arrow", "-o", f"{at}/{size}.ordered.jsonl"])
        for repeat in range(asked.repeats):
            taken: dict[str, list[tuple[float, float]]] = {name: [] for name in found}
            for size in sizes:
                output = at / f"{size}.{repeat}"
                theirs = [python, "-m", "vllm.entrypoints.openai.run_batch", "--model"]
                theirs += [f"{at}/model", *own, "-i", f"{at}/{size}.ordered.jsonl"]
                taken["batch runner"].append(run([*theirs, "-o", f"{output}.theirs"]))
                ours = [*blendplan, "replay", f"{at}/{size}.arrow", "--engine", "vllm"]
                ours += ["--model", f"{at}/model", "-o", f"{output}.ours", "--", *own]
                taken["replay"].append(run(ours))
            for name, ((few_s, few_cpu), (all_s, all_cpu)) in taken.items():
                found[name].append((all_s - few_s, all_cpu - few_cpu))
    per = 1e3 / asked.requests
    result = {
        name: {
            "wall_ms_per_request": [round(per * wall, 2) for wall, _ in runs],
            "cpu_ms_per_request": [round(per * cpu, 2) for _, cpu in runs],
        }
        for name, runs in found.items()
    }
    pairs = list(zip(found["replay"], found["batch runner"], strict=True))
    over = {
        "wall": round(median(ours[0] / theirs[0] for ours, theirs in pairs), 3),
        "cpu": round(median(ours[1] / theirs[1] for ours, theirs in pairs), 3),
    }
    print(json.dumps({"requests": asked.requests, **result, "replay over batch runner": over}))


if __name__ == "__main__":
    main()

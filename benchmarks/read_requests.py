"""How fast request files are read, and in how much memory; prints one JSON object.

    python benchmarks/read_requests.py [--megabytes 200] [--requests 200000] [--file FILE ...]

JSON lines have texts of 1 to 4 KB with line ends, escapes and some characters outside ASCII, which
half of the lines have escaped. The Parquet file has token ids, 500 for each request. Both
are made in a temporary folder. Each file is read in a process of its own, twice; the second time
counts, since the first one compiles. ``--file`` measures given files instead.

``ratio_to_target`` is the speed over 100 MB/s, and ``memory_ratio`` the growth of the process over
the size of the columns that come out (token ids and bodies).
"""

import argparse
import gzip
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

TARGET_MB_PER_S = 100
WORDS = (
    "plan", "order", "request", "prefix", "token", "memory", "batch", "step", "length", "model",
    "answer", "question", "the", "a", "of", "to", "and", "naïve", "café", "Zürich", "“quoted”", "—",
    "日本", "größer", "\t", "tab\\path", "said:", '"no"', "3.14", "e.g.", "(see", "above)",
)  # fmt: skip


def json_lines(size: int, form: str) -> bytes:
    """About `size` bytes of lines: ``plain`` prompts, ``chat`` batch lines, or ``mixed`` ones."""
    random = Random(7)
    lines: list[bytes] = []
    total = 0
    while total < size:
        number = len(lines)
        words = random.choices(WORDS, k=random.randrange(180, 700))
        text = "".join(
            word + ("\n" if place % 14 == 13 else " ") for place, word in enumerate(words)
        )
        line: dict[str, Any] = {"id": f"r{number}", "prompt": text, "max_tokens": 256}
        if form == "chat" or (form == "mixed" and number % 2):
            system = {"role": "system", "content": "You are a careful assistant."}
            messages = [system, {"role": "user", "content": text}]
            line = {
                "custom_id": f"r{number}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {"model": "m", "messages": messages, "max_tokens": 256, "top_p": 0.9},
            }
        lines.append(json.dumps(line, ensure_ascii=number % 4 < 2).encode())
        total += len(lines[-1]) + 1
    return b"\n".join(lines) + b"\n"


def measure(path: Path) -> dict[str, Any]:
    """Read one file twice in this process."""
    from blendplan.requests.read import read_requests

    start = time.perf_counter()
    requests = read_requests(path)
    first_s = time.perf_counter() - start
    del requests
    before = _resident_bytes()
    cpu = time.process_time()
    start = time.perf_counter()
    requests = read_requests(path)
    wall_s = time.perf_counter() - start
    cpu_s = time.process_time() - cpu
    bodies = 0 if requests.bodies is None else requests.bodies.nbytes
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "requests": len(requests),
        "prompt_tokens": len(requests.token_ids),
        "first_wall_s": round(first_s, 3),
        "wall_s": round(wall_s, 3),
        "cpu_s": round(cpu_s, 3),
        "peak_bytes": peak,
        "memory_ratio": round((peak - before) / (requests.token_ids.nbytes + bodies), 2),
    }


def _resident_bytes() -> int:
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


def measure_apart(path: Path, text_bytes: int | None) -> dict[str, Any]:
    """`measure` in a fresh process, with speeds."""
    output = subprocess.run(
        [sys.executable, __file__, "--measure", str(path)], check=True, capture_output=True
    ).stdout
    result: dict[str, Any] = json.loads(output)
    if text_bytes is not None:
        speed = text_bytes / result["wall_s"] / 1e6
        result["mb_per_s"] = round(speed, 1)
        result["mb_per_cpu_s"] = round(text_bytes / result["cpu_s"] / 1e6, 1)
        result["ratio_to_target"] = round(speed / TARGET_MB_PER_S, 2)
    result["tokens_per_s"] = round(result["prompt_tokens"] / result["wall_s"])
    return result


def main() -> None:
    """Make the files, measure, print."""
    parser = argparse.ArgumentParser(description="Measure how fast request files are read.")
    parser.add_argument("--megabytes", type=float, default=200, help="size of the text files")
    parser.add_argument("--requests", type=int, default=200_000, help="of the Parquet file")
    parser.add_argument("--file", type=Path, nargs="+", default=[], help="measure these instead")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure)))
        return
    results = {str(path): measure_apart(path, None) for path in arguments.file}
    if not arguments.file:
        with tempfile.TemporaryDirectory() as folder:
            results = _standard(Path(folder), int(arguments.megabytes * 1e6), arguments.requests)
    print(json.dumps({"read_requests": results}, indent=2))


def _standard(folder: Path, size: int, requests: int) -> dict[str, dict[str, Any]]:
    results = {}
    for form in ("plain", "chat", "mixed"):
        data = json_lines(size, form)
        path = folder / f"{form}.jsonl"
        path.write_bytes(data)
        results[f"{form}.jsonl"] = measure_apart(path, len(data))
        if form == "chat":
            packed = folder / "chat.jsonl.gz"
            packed.write_bytes(gzip.compress(data, 1))
            results["chat.jsonl.gz"] = measure_apart(packed, len(data))
        path.unlink()
    columns = folder / "columns.parquet"
    million = Path(__file__).with_name("million.py")
    subprocess.run(
        [sys.executable, str(million), "-n", str(requests), "-o", str(columns)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    results["token ids.parquet"] = measure_apart(columns, None)
    return results


if __name__ == "__main__":
    main()

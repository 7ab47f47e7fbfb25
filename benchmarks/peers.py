"""Prefix structure beside SGLang's radix cache and vLLM's block hashing, on the same token ids.

    python benchmarks/peers.py --data DIR --sglang PYTHON --vllm PYTHON [-o FILE]

``PYTHON`` is the interpreter of an environment with that engine; the engine's own classes do the
work there, in a process of its own, one after the other on one core. *Build* puts every prompt in;
*query* asks of every prompt how much of it is shared. All must find the same sharing. The answer is
one JSON object on standard output, ratios being peer seconds over ours.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

BLOCK_TOKENS = 16
Times = dict[str, float]


def ours(token_ids: Any, offsets: Any) -> Times:
    """blendplan: the compressed tree; what each prompt shares, in tokens and in blocks."""
    import pyarrow as pa

    from blendplan.requests.columns import Requests
    from blendplan.tree.blocks import block_chains
    from blendplan.tree.build import build_tree
    from blendplan.tree.sharing import prefix_tokens_unique, shared_prefix_tokens

    n = len(offsets) - 1
    unknown = np.full(n, -1, np.int32)
    ids = pa.array(np.arange(n)).cast(pa.large_string())
    requests = Requests(ids, np.arange(n), token_ids, offsets, unknown, unknown)
    few = Requests(ids[:9], np.arange(9), token_ids, offsets[:10], unknown[:9], unknown[:9])
    block_chains(build_tree(few), few, BLOCK_TOKENS)  # compiles the kernels
    started = time.perf_counter()
    tree = build_tree(requests)
    built = time.perf_counter()
    shared_prefix_tokens(tree)
    chains = block_chains(tree, requests, BLOCK_TOKENS)
    queried = time.perf_counter()
    full_blocks = np.diff(offsets) // BLOCK_TOKENS
    distinct = int(full_blocks.sum()) - len(chains.chain_ids) + chains.count
    return {
        "build_s": built - started,
        "query_s": queried - built,
        "shared_tokens": int(offsets[-1]) - prefix_tokens_unique(tree),
        "distinct_blocks": distinct,
    }


def sglang(token_ids: Any, offsets: Any) -> Times:
    """SGLang: every prompt into its radix cache, then matched against it."""
    import torch
    from sglang.srt.mem_cache.base_prefix_cache import InsertParams, MatchPrefixParams
    from sglang.srt.mem_cache.radix_cache import RadixCache, RadixKey

    prompts = [
        RadixKey(array("q", token_ids[start:end].tolist())) for start, end in pairwise(offsets)
    ]
    slots = torch.arange(int(np.diff(offsets).max()))
    cache = RadixCache.create_simulated()
    started = time.perf_counter()
    shared = 0
    for prompt in prompts:
        shared += cache.insert(InsertParams(key=prompt, value=slots[: len(prompt)])).prefix_len
    built = time.perf_counter()
    for prompt in prompts:
        cache.match_prefix(MatchPrefixParams(key=prompt))
    queried = time.perf_counter()
    return {"build_s": built - started, "query_s": queried - built, "shared_tokens": shared}


def vllm(token_ids: Any, offsets: Any) -> Times:
    """vLLM: the hashes of all full blocks into its map of cached blocks, then looked up there."""
    from vllm import SamplingParams
    from vllm.utils.hashing import get_hash_fn_by_name
    from vllm.v1.core.block_pool import BlockHashToBlockMap
    from vllm.v1.core.kv_cache_utils import (
        KVCacheBlock,
        get_request_block_hasher,
        init_none_hash,
        make_block_hash_with_group_id,
    )
    from vllm.v1.request import Request

    hash_function = get_hash_fn_by_name("sha256")
    init_none_hash(hash_function)
    hasher = get_request_block_hasher(BLOCK_TOKENS, hash_function)
    sampling = SamplingParams(max_tokens=1)
    requests = [
        Request(str(k), token_ids[start:end].tolist(), sampling, None)
        for k, (start, end) in enumerate(pairwise(offsets))
    ]
    blocks = [KVCacheBlock(k) for k in range(int((np.diff(offsets) // BLOCK_TOKENS).sum()))]
    cached = BlockHashToBlockMap()
    started = time.perf_counter()
    used = 0
    hashes = []
    for request in requests:
        keys = [make_block_hash_with_group_id(one, 0) for one in hasher(request)]
        hashes.append(keys)
        for key in keys:
            cached.insert(key, blocks[used])
            used += 1
    built = time.perf_counter()
    for keys in hashes:
        for key in keys:
            if cached.get_one_block(key) is None:
                break
    queried = time.perf_counter()
    return {
        "build_s": built - started,
        "query_s": queried - built,
        "distinct_blocks": len(cached),
    }


SUBJECTS: dict[str, Callable[[Any, Any], Times]] = {"ours": ours, "sglang": sglang, "vllm": vllm}


def main() -> None:
    """Run all, or one on token ids that are there already."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, default=os.environ.get("BLENDPLAN_DATA"))
    parser.add_argument("--sglang", help="interpreter of an environment with SGLang")
    parser.add_argument("--vllm", help="interpreter of an environment with vLLM")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("-o", "--output", type=Path, help="write the answer there, too")
    parser.add_argument("--one", choices=SUBJECTS, help=argparse.SUPPRESS)
    parser.add_argument("--tokens", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        saved = np.load(arguments.tokens)
        print(json.dumps(SUBJECTS[arguments.one](saved["token_ids"], saved["offsets"])))
        return
    if arguments.data is None:
        parser.error("give --data DIR, the folder with the traces, or set BLENDPLAN_DATA")
    found = json.dumps(_compare(arguments), indent=1)
    if arguments.output:
        arguments.output.write_text(found + "\n", encoding="utf-8")
    print(found)


def _compare(arguments: argparse.Namespace) -> dict[str, Any]:
    from benchmarks.synthetic.workloads import paper_trace

    requests = paper_trace("trace1", arguments.data, requests=arguments.requests)
    pythons = {"ours": sys.executable, "sglang": arguments.sglang, "vllm": arguments.vllm}
    found: dict[str, Any] = {
        "workload": "trace1",
        "requests": len(requests),
        "prompt_tokens": len(requests.token_ids),
    }
    with tempfile.TemporaryDirectory(prefix="blendplan-") as folder:
        tokens = Path(folder) / "tokens.npz"
        np.savez(tokens, token_ids=requests.token_ids, offsets=requests.offsets)
        for name, python in pythons.items():
            if python is not None:
                found[name] = _elsewhere(name, python, tokens)
    for name in ("sglang", "vllm"):
        if name not in found:
            continue
        for key in ("shared_tokens", "distinct_blocks"):
            if key in found[name] and found[name][key] != found["ours"][key]:
                sys.exit(f"{name} finds {found[name][key]} {key}, we {found['ours'][key]}")
        found[f"{name}_over_ours"] = {
            "build": found[name]["build_s"] / found["ours"]["build_s"],
            "query": found[name]["query_s"] / found["ours"]["query_s"],
        }
    return found


def _elsewhere(name: str, python: str, tokens: Path) -> Times:
    """One subject in a process of its own, on one core."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "VLLM_TARGET_DEVICE": "cpu",
        "SGLANG_USE_CPU_ENGINE": "1",
        "HF_HUB_OFFLINE": "1",
    }
    if name != "ours":
        environment.pop("PYTHONPATH", None)
    words = [python, __file__, "--one", name, "--tokens", str(tokens)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name} failed with {python}:\n{done.stderr[-2000:]}")
    answer: Times = json.loads(done.stdout.splitlines()[-1])
    return answer


if __name__ == "__main__":
    main()

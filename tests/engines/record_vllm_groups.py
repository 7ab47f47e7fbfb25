"""Drive vLLM's scheduler over layouts of the KV cache and write down every step.

    python -m tests.engines.record_vllm_groups MODEL FOLDER NAME ...

Scheduler and KV cache manager are vLLM's own; the layout is given to them as a worker would report
it, and no model runs: tokens are made up, no two alike. So every kind of layer can be recorded,
whatever the machine has kernels for. MODEL is any model folder; nothing but its configuration is
read. A file is as those of `record_vllm_steps`, with the ``groups`` of the layout in place of the
size of a block; ``async-NAME`` is NAME with asynchronous scheduling.
"""

import json
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from tests.engines.record_vllm_steps import ASYNC, _step, _tokens, groups_of


@dataclass(frozen=True)
class Recorded:
    """A layout, a workload and the limits that it runs under.

    Attributes:
        groups: kind, reach in tokens, tokens of a block, bucket, and tokens that a state's
            checkpoint is a multiple of; a dict for each group.
        prompts: token ids of each request, in the order of admission.
        output_tokens: how many tokens each generates.
        blocks: of the pool, one of which vLLM keeps as a placeholder.
        max_num_batched_tokens, max_num_seqs, max_model_len: vLLM's limits.
    """

    groups: list[dict[str, Any]]
    prompts: list[list[int]]
    output_tokens: list[int]
    blocks: int
    max_num_batched_tokens: int
    max_num_seqs: int
    max_model_len: int = 1024


def _group(kind: str, tokens: int, bucket: int, reach: int = 0, checkpoint: int = 0) -> Any:
    return {
        "kind": kind,
        "reach": reach,
        "block_tokens": tokens,
        "bucket": bucket,
        "checkpoint_tokens": checkpoint,
    }


def _window(tokens: int, reach: int, groups: int = 1, bucket: int = 0) -> list[Any]:
    return [_group("sliding", tokens, bucket, reach)] * groups


def _state(tokens: int, groups: int = 1, bucket: int = 0, checkpoint: int = 0) -> list[Any]:
    return [_group("state", tokens, bucket, checkpoint=checkpoint)] * groups


def _full(tokens: int, bucket: int = 1) -> list[Any]:
    return [_group("full", tokens, bucket)]


# Groups in the proportions of published models, with small blocks and windows.
LAYOUTS = {
    "gemma": [*_window(4, 24, groups=5), *_full(4)],
    "gptoss": [*_window(4, 8), *_full(4)],
    "narrow": [*_window(8, 3), *_full(8)],
    "gemma4": [*_window(4, 20, groups=2), *_full(8)],
    "windows": [*_window(4, 12), *_window(4, 30, bucket=1), *_full(4, bucket=2)],
    "nofull": [*_window(4, 12), *_window(4, 30, bucket=1)],
    "mistral": _window(4, 24),
    "llama4": [*[_group("chunked", 4, 0, 16)] * 3, *_full(4)],
    "odd_chunk": [_group("chunked", 4, 0, 18), *_full(4)],
    "deltanet": [*_state(16, groups=3), *_full(16)],
    "nemotron": [*_state(16, groups=3, checkpoint=1), *_full(16)],
    "kda": [*_state(16, groups=3, checkpoint=8), *_full(16)],
    "jamba": [*_full(8, bucket=0), *_state(8, groups=7, bucket=1)],
    "wide_state": [*_state(64, groups=2), *_full(64)],
    "mamba": _state(8),
    "mamba2": _state(8, checkpoint=1),
    "window_state": [*_state(16, groups=2), *_window(16, 40, bucket=1), *_full(16, bucket=2)],
    "falcon_h1": [*_state(32, checkpoint=1), *_full(32)],
    # A quarter of the real windows and blocks.
    "deepseek_v4": [
        *_window(16, 32, groups=2),
        *_full(64),
        *_window(1, 2, bucket=2),
        *_window(2, 32, bucket=3),
    ],
    "kimi": [*_state(16, groups=2), *_window(32, 40, bucket=1)],
}


def workload(name: str) -> Recorded:
    """A workload by its name: a layout and the seed of the rest, as in ``gemma4_7``."""
    layout, _, seed = name.rpartition("_")
    return _random(LAYOUTS[layout], int(seed))


def _random(groups: list[dict[str, Any]], seed: int) -> Recorded:
    """Families of prompts, equal prompts, prompts of whole blocks, little memory; at random."""
    rng = np.random.default_rng(seed)
    block = int(np.lcm.reduce([group["block_tokens"] for group in groups]))
    scale = int(rng.choice([1, 2, 5]))
    families = [_tokens(rng, block * int(rng.integers(1, 4 * scale))) for _ in range(3)]
    prompts = []
    for _ in range(int(rng.integers(15, 40))):
        family = families[rng.integers(3)]
        kind = rng.random()
        if kind < 0.3:
            prompts.append(family)
        elif kind < 0.5:
            prompts.append(family + _tokens(rng, int(rng.integers(1, 3 * block))))
        elif kind < 0.8:
            common = family[: int(rng.integers(1, len(family) + 1))]
            prompts.append(common + _tokens(rng, int(rng.integers(1, 2 * block))))
        else:
            prompts.append(_tokens(rng, int(rng.integers(1, 4 * block * scale))))
    prompts = [prompt[:600] for prompt in prompts]
    outputs = np.minimum(rng.geometric(1 / min(30, 2 * block), len(prompts)), 150).tolist()
    slots = int(rng.integers(3, 16))
    tokens = max(slots, int(rng.integers(block // 2, 6 * block)))
    longest = max(len(p) + d for p, d in zip(prompts, outputs, strict=True))
    least = sum(_most_blocks(group, longest, 2 * tokens) for group in groups)
    blocks = 1 + least + int(rng.integers(0, max(2, least)))
    return Recorded(groups, prompts, outputs, blocks, tokens, slots)


def _most_blocks(group: dict[str, Any], tokens: int, in_flight: int) -> int:
    """Blocks that are enough for one request alone."""
    if group["kind"] == "state":
        return 3
    reach = group["reach"] + in_flight if group["reach"] else tokens
    return -(-min(reach, tokens) // group["block_tokens"]) + 1


def _config(groups: Sequence[dict[str, Any]], blocks: int) -> Any:
    """The layout as vLLM has it; sizes in bytes do not matter to a scheduler."""
    import torch
    from vllm.v1.kv_cache_interface import (
        ChunkedLocalAttentionSpec,
        FullAttentionSpec,
        KVCacheConfig,
        KVCacheGroupSpec,
        MambaSpec,
        SlidingWindowSpec,
    )

    def spec(group: dict[str, Any]) -> Any:
        tokens = group["block_tokens"]
        if group["kind"] == "state":
            checkpoint = group["checkpoint_tokens"]
            return MambaSpec(
                block_size=tokens,
                shapes=((64,),),
                dtypes=(torch.int8,),
                mamba_cache_mode="align",
                num_prefill_checkpoint_blocks=int(checkpoint > 0),
                prefill_checkpoint_alignment=checkpoint or None,
            )
        # The size of a head tells buckets apart.
        sizes: dict[str, Any] = {
            "block_size": tokens,
            "num_kv_heads": 1,
            "head_size": 8 + group["bucket"],
            "dtype": torch.int8,
        }
        if group["kind"] == "sliding":
            return SlidingWindowSpec(sliding_window=group["reach"], **sizes)
        if group["kind"] == "chunked":
            return ChunkedLocalAttentionSpec(attention_chunk_size=group["reach"], **sizes)
        return FullAttentionSpec(**sizes)

    return KVCacheConfig(
        num_blocks=blocks,
        kv_cache_tensors=[],
        kv_cache_groups=[
            KVCacheGroupSpec([f"layer.{number}"], spec(group))
            for number, group in enumerate(groups)
        ],
        prefix_cache_retention_interval=0,
    )


class Driver:
    """vLLM's scheduler, and an engine around it that makes up what is sampled."""

    def __init__(self, config: Any, run: Recorded, *, async_scheduling: bool) -> None:
        from vllm.v1.core.kv_cache_utils import resolve_kv_cache_block_sizes
        from vllm.v1.core.sched.async_scheduler import AsyncScheduler
        from vllm.v1.core.sched.scheduler import Scheduler
        from vllm.v1.structured_output import StructuredOutputManager

        config.model_config.max_model_len = run.max_model_len
        scheduler_config, cache_config = config.scheduler_config, config.cache_config
        scheduler_config.max_num_seqs = run.max_num_seqs
        scheduler_config.max_num_batched_tokens = run.max_num_batched_tokens
        scheduler_config.max_num_scheduled_tokens = run.max_num_batched_tokens
        scheduler_config.async_scheduling = async_scheduling
        cache_config.enable_prefix_caching = True
        cache_config.num_gpu_blocks = run.blocks
        # States are as long as the block of the engine, which other groups may multiply.
        states = [group["block_tokens"] for group in run.groups if group["kind"] == "state"]
        cache_config.block_size = min(states or [run.groups[0]["block_tokens"]])
        cache_config.mamba_cache_mode = "align" if states else "none"
        layout = _config(run.groups, run.blocks)
        block_size, hash_block_size = resolve_kv_cache_block_sizes(layout, config)
        self.scheduler = (AsyncScheduler if async_scheduling else Scheduler)(
            vllm_config=config,
            kv_cache_config=layout,
            structured_output_manager=StructuredOutputManager(config),
            block_size=block_size,
            hash_block_size=hash_block_size,
        )
        self.hash_block_size = hash_block_size
        self.under_way: deque[Any] = deque()
        self.most_under_way = 1 + async_scheduling
        self.next_token = count(10**6)

    def add(self, row: int, prompt: list[int], output_tokens: int) -> None:
        from vllm.sampling_params import SamplingParams
        from vllm.utils.hashing import sha256
        from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
        from vllm.v1.request import Request

        init_none_hash(sha256)
        parameters = SamplingParams(max_tokens=output_tokens, ignore_eos=True)
        hasher = get_request_block_hasher(self.hash_block_size, sha256)
        self.scheduler.add_request(Request(str(row), prompt, parameters, None, block_hasher=hasher))

    def schedule(self) -> Any:
        """What the next step computes."""
        output = self.scheduler.schedule()
        self.under_way.append((output, self._sampled(output)))
        return output

    def take_output(self) -> list[int]:
        """The output of a step comes back, with asynchronous scheduling of the one before the last.

        Answers the requests that are done.
        """
        if len(self.under_way) < self.most_under_way:
            return []
        told = self.scheduler.update_from_output(*self.under_way.popleft())
        outputs = [each for of_client in told.values() for each in of_client.outputs]
        return [int(each.request_id) for each in outputs if each.finished]

    def _sampled(self, output: Any) -> Any:
        from vllm.v1.outputs import ModelRunnerOutput

        names = list(output.num_scheduled_tokens)
        requests = [self.scheduler.requests[name] for name in names]
        return ModelRunnerOutput(
            req_ids=names,
            req_id_to_index={name: place for place, name in enumerate(names)},
            sampled_token_ids=[
                [] if request.is_prefill_chunk else [next(self.next_token)] for request in requests
            ],
        )


def record(config: Any, run: Recorded, *, async_scheduling: bool = False) -> dict[str, Any]:
    """Run one workload and answer everything that happened."""
    driver = Driver(config, run, async_scheduling=async_scheduling)
    for row, (prompt, length) in enumerate(zip(run.prompts, run.output_tokens, strict=True)):
        driver.add(row, prompt, length)
    steps: list[dict[str, Any]] = []
    ends: dict[int, int] = {}
    cached: dict[int, int] = {}
    idle = 0
    while driver.scheduler.has_unfinished_requests() and idle < 5:
        output = driver.schedule()
        if output.num_scheduled_tokens or async_scheduling:
            step = _step(driver.scheduler, output)
            steps.append(step)
            for row, hit in step["admitted"]:
                cached.setdefault(row, hit)
        idle = 0 if output.num_scheduled_tokens else idle + 1
        ends |= dict.fromkeys(driver.take_output(), len(steps) - 1)
    assert len(ends) == len(run.prompts), "the scheduler came to a standstill"
    return {
        "async_scheduling": async_scheduling,
        "groups": groups_of(driver.scheduler),
        "usable_blocks": run.blocks - 1,
        "max_num_batched_tokens": run.max_num_batched_tokens,
        "max_num_seqs": run.max_num_seqs,
        "prompts": run.prompts,
        "output_tokens": run.output_tokens,
        "steps": steps,
        "finished": [
            {"step": ends[row], "cached": cached[row], "output": run.output_tokens[row]}
            for row in range(len(run.prompts))
        ],
    }


def main() -> None:
    """Record the workloads named on the command line."""
    from tests.engines.vllm_specs import engine_config

    model, folder, *names = sys.argv[1:]
    config = engine_config(Path(model))
    for name in names:
        plain = name.removeprefix(ASYNC)
        recorded = record(config, workload(plain), async_scheduling=plain != name)
        (Path(folder) / f"{name}.json").write_text(json.dumps({"name": name, **recorded}))


if __name__ == "__main__":
    main()

"""Run workloads through the real vLLM in this process and write down every scheduler step.

    python tests/engines/record_vllm_steps.py MODEL FOLDER [NAME ...]

writes FOLDER/NAME.json for each workload: what was asked, and per step the tokens scheduled, the
requests admitted (with their cached tokens), preempted, running and waiting, and the free blocks.
A workload ``async-NAME`` is NAME with asynchronous scheduling, with the steps in it that computed
nothing; ``NAME:3`` has three times as many blocks, for a model whose KV cache has as many groups.
Imports nothing of blendplan: what it writes is vLLM's own.
"""

import json
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

ASYNC = "async-"
BLOCK_SIZE = 32  # the smallest that vLLM's CPU attention takes


@dataclass(frozen=True)
class Recorded:
    """A workload and the limits that it runs under.

    Attributes:
        prompts: token ids of each request, in the order of admission.
        output_tokens: how many tokens each generates, and each of its answers.
        blocks: KV-cache blocks, one of which vLLM keeps as a placeholder.
        max_num_batched_tokens, max_num_seqs, max_model_len: vLLM's limits.
        temperature: 0 makes equal prompts generate equal tokens, which then share blocks.
        answers: ``n`` of each request, None where it is 1.
    """

    prompts: list[list[int]]
    output_tokens: list[int]
    blocks: int
    max_num_batched_tokens: int = 256
    max_num_seqs: int = 16
    max_model_len: int = 512
    temperature: float = 0.0
    answers: list[int] | None = None


def no_pressure() -> Recorded:
    """Everything fits at once; nothing is shared."""
    rng = np.random.default_rng(1)
    prompts = [_tokens(rng, int(rng.integers(5, 120))) for _ in range(40)]
    return Recorded(prompts, rng.integers(1, 40, 40).tolist(), blocks=1000)


def sharing() -> Recorded:
    """Five families of prompts with a long common beginning."""
    rng = np.random.default_rng(2)
    prompts = _families(rng, requests=60, families=5, common=(40, 200), own=(1, 40))
    return Recorded(prompts, rng.integers(1, 30, 60).tolist(), blocks=60)


def pressure() -> Recorded:
    """Outputs outgrow the KV cache: many preemptions."""
    rng = np.random.default_rng(3)
    prompts = _families(rng, requests=30, families=4, common=(30, 80), own=(1, 50))
    return Recorded(prompts, rng.integers(20, 150, 30).tolist(), blocks=25)


def chunked() -> Recorded:
    """Prompts several times as long as a step."""
    rng = np.random.default_rng(4)
    prompts = _families(rng, requests=25, families=2, common=(200, 300), own=(1, 300))
    outputs = rng.integers(1, 60, 25).tolist()
    return Recorded(prompts, outputs, blocks=60, max_num_batched_tokens=64, max_model_len=1024)


def many() -> Recorded:
    """Many more requests than slots."""
    rng = np.random.default_rng(5)
    prompts = _families(rng, requests=150, families=6, common=(64, 65), own=(1, 30))
    return Recorded(prompts, rng.integers(1, 25, 150).tolist(), blocks=50, max_num_seqs=6)


def mixed(seed: int) -> Recorded:
    """Equal prompts, prompts of whole blocks, little memory, small steps; at random."""
    rng = np.random.default_rng(seed)
    families = [_tokens(rng, BLOCK_SIZE * int(rng.integers(1, 6))) for _ in range(3)]
    prompts = []
    for _ in range(int(rng.integers(20, 45))):
        family = families[rng.integers(3)]
        kind = rng.random()
        if kind < 0.3:
            prompts.append(family)
        elif kind < 0.7:
            common = family[: int(rng.integers(1, len(family) + 1))]
            prompts.append(common + _tokens(rng, int(rng.integers(1, 60))))
        else:
            prompts.append(_tokens(rng, int(rng.integers(1, 150))))
    slots = int(rng.integers(3, 20))
    return Recorded(
        prompts,
        np.minimum(rng.geometric(1 / 40, len(prompts)), 250).tolist(),
        blocks=int(rng.integers(18, 30)),
        max_num_batched_tokens=max(slots, int(rng.integers(20, 120))),
        max_num_seqs=slots,
        temperature=1.0,
    )


def growing() -> Recorded:
    """Outputs that outgrow blocks of 544 tokens, of a model with states; many preemptions."""
    rng = np.random.default_rng(8)
    prompts = _families(rng, requests=24, families=3, common=(400, 480), own=(20, 60))
    outputs = rng.integers(60, 250, 24).tolist()
    return Recorded(prompts, outputs, blocks=25, max_model_len=1024)


def answers() -> Recorded:
    """Three answers to each prompt, some prompts longer than a step; little memory."""
    rng = np.random.default_rng(6)
    prompts = _families(rng, requests=24, families=4, common=(30, 150), own=(1, 120))
    return Recorded(
        prompts,
        rng.integers(5, 120, 24).tolist(),
        blocks=32,
        max_num_batched_tokens=96,
        temperature=1.0,
        answers=[3] * 24,
    )


def many_answers() -> Recorded:
    """One to more answers than run at once; equal prompts among the requests."""
    rng = np.random.default_rng(7)
    prompts = _families(rng, requests=20, families=5, common=(64, 65), own=(1, 40))
    prompts[5] = prompts[4]
    return Recorded(
        prompts,
        rng.integers(1, 70, 20).tolist(),
        blocks=40,
        max_num_seqs=8,
        temperature=1.0,
        answers=[int(number) for number in rng.integers(1, 12, 20)],
    )


def start() -> Recorded:
    """Nothing: the engine starts, and says what it has."""
    return Recorded([], [], blocks=400)


def workload(name: str) -> Recorded:
    """A workload by its name; ``mixed7`` is the random one of seed 7."""
    named = {
        "start": start,
        "no_pressure": no_pressure,
        "sharing": sharing,
        "pressure": pressure,
        "chunked": chunked,
        "many": many,
        "growing": growing,
        "answers": answers,
        "many_answers": many_answers,
    }
    return named[name]() if name in named else mixed(int(name.removeprefix("mixed")))


def record(model: str, run: Recorded, *, async_scheduling: bool = False) -> dict[str, Any]:
    """Run one workload and answer everything that happened."""
    from vllm import EngineArgs, SamplingParams
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler
    from vllm.v1.engine.llm_engine import LLMEngine

    arguments = EngineArgs(
        model=model,
        load_format="dummy",
        skip_tokenizer_init=True,
        enforce_eager=True,
        enable_prefix_caching=True,
        block_size=BLOCK_SIZE,
        # Else some CPUs keep states in this type, and others in the model's.
        mamba_ssm_cache_dtype="float32",
        num_gpu_blocks_override=run.blocks,
        max_model_len=run.max_model_len,
        max_num_seqs=run.max_num_seqs,
        max_num_batched_tokens=run.max_num_batched_tokens,
        async_scheduling=False,
        disable_log_stats=True,
        seed=0,
    )
    config = arguments.create_engine_config()
    engine = LLMEngine(
        config,
        executor_class=_executor(async_scheduling),
        log_stats=False,
        multiprocess_mode=False,
    )
    core = engine.engine_core.engine_core
    assert isinstance(core.scheduler, AsyncScheduler) is async_scheduling
    assert (core.batch_queue is not None) is async_scheduling
    scheduler = core.scheduler
    steps: list[dict[str, Any]] = []
    schedule = scheduler.schedule

    def watched(*args: Any, **kwargs: Any) -> Any:
        output = schedule(*args, **kwargs)
        if output.num_scheduled_tokens or async_scheduling:
            steps.append(_step(scheduler, output))
        return output

    scheduler.schedule = watched
    numbers = run.answers or [1] * len(run.prompts)
    # Requests are named by the row of their first answer; the others have the rows after it.
    firsts = np.cumsum([0, *numbers])[:-1].tolist()
    for row, prompt, length, number in zip(
        firsts, run.prompts, run.output_tokens, numbers, strict=True
    ):
        parameters = SamplingParams(
            n=number,
            max_tokens=length,
            ignore_eos=True,
            temperature=run.temperature,
            detokenize=False,
        )
        engine.add_request(str(row), {"prompt_token_ids": prompt}, parameters)
    ends: dict[int, dict[str, int]] = {}
    while engine.has_unfinished_requests():
        for output in engine.step():
            for answer in output.outputs:
                if answer.finish_reason is not None:
                    ends[int(output.request_id) + answer.index] = {
                        "step": len(steps) - 1,
                        "cached": output.num_cached_tokens,
                        "output": len(answer.token_ids),
                    }
    described = groups_of(scheduler)
    capacity = _capacity(config, scheduler)
    engine.engine_core.shutdown()
    return {
        "async_scheduling": async_scheduling,
        **_layout(described),
        "capacity": capacity,
        "usable_blocks": run.blocks - 1,
        "max_num_batched_tokens": run.max_num_batched_tokens,
        "max_num_seqs": run.max_num_seqs,
        "max_model_len": run.max_model_len,
        "prompts": _repeated(run.prompts, numbers),
        "output_tokens": _repeated(run.output_tokens, numbers),
        "answers": numbers,
        "steps": steps,
        "finished": [ends[row] for row in range(sum(numbers))],
    }


def groups_of(scheduler: Any) -> list[dict[str, Any]]:
    """The groups of a scheduler's KV cache: what of them its steps depend on."""
    kinds = {"SlidingWindowSpec": "sliding", "ChunkedLocalAttentionSpec": "chunked"}
    kinds |= {"MambaSpec": "state"}
    reaches = {"sliding": "sliding_window", "chunked": "attention_chunk_size"}
    managers = scheduler.kv_cache_manager.coordinator.single_type_managers
    specs: list[Any] = []
    groups = []
    for manager in managers:
        spec = manager.kv_cache_spec
        if spec not in specs:
            specs.append(spec)
        kind = kinds.get(type(spec).__name__, "full")
        groups.append(
            {
                "kind": kind,
                "reach": getattr(spec, reaches[kind]) if kind in reaches else 0,
                "block_tokens": spec.block_size,
                "bucket": specs.index(spec),
                "checkpoint_tokens": getattr(spec, "prefill_checkpoint_alignment", None) or 0,
                "most_blocks": manager.max_admission_blocks_per_request or 0,
            }
        )
    return groups


def _layout(groups: list[dict[str, Any]]) -> dict[str, Any]:
    """The groups, or the size of a block where there is one, of full attention."""
    if [group["kind"] for group in groups] == ["full"]:
        return {"block_size": groups[0]["block_tokens"]}
    return {"groups": groups}


def _capacity(config: Any, scheduler: Any) -> dict[str, Any]:
    """What vLLM makes of a GiB for this model, at start and in its log."""
    from vllm.v1.core.kv_cache_utils import get_kv_cache_capacity, get_kv_cache_config_from_groups

    override = config.cache_config.num_gpu_blocks_override
    config.cache_config.num_gpu_blocks_override = None
    groups = scheduler.kv_cache_config.kv_cache_groups
    cache = get_kv_cache_config_from_groups(config, groups, 2**30)
    config.cache_config.num_gpu_blocks_override = override
    return {
        "blocks": cache.num_blocks,
        "logged_tokens": get_kv_cache_capacity(config, cache)[0],
        "layers": [len(group.layer_names) for group in groups],
    }


def _executor(async_scheduling: bool) -> Any:
    """What runs the model, for an engine that schedules one way or the other.

    vLLM never schedules asynchronously on a CPU (vllm/platforms/cpu.py). So the model runs as it
    does there, and what comes up after it, the scheduler and the engine's loop, is asynchronous.
    """
    from vllm.v1.executor.uniproc_executor import UniProcExecutor

    class Executor(UniProcExecutor):  # type: ignore[misc]
        def _init_executor(self) -> None:
            super()._init_executor()
            self.vllm_config.scheduler_config.async_scheduling = async_scheduling

    return Executor


def _step(scheduler: Any, output: Any) -> dict[str, Any]:
    old = output.scheduled_cached_reqs
    cached = {new.req_id: new.num_computed_tokens for new in output.scheduled_new_reqs} | {
        request_id: computed
        for request_id, computed in zip(old.req_ids, old.num_computed_tokens, strict=True)
        if request_id in old.resumed_req_ids
    }
    scheduled = output.num_scheduled_tokens
    return {
        "scheduled": [[_row(name), tokens] for name, tokens in scheduled.items()],
        "admitted": [[_row(name), cached[name]] for name in scheduled if name in cached],
        "preempted": sorted(_row(name) for name in output.preempted_req_ids),
        "running": [_row(request.request_id) for request in scheduler.running],
        "waiting": [_row(request.request_id) for request in scheduler.waiting],
        "free_blocks": scheduler.kv_cache_manager.block_pool.get_num_free_blocks(),
    }


def _row(request_id: str) -> int:
    """Row of a sequence; vLLM names those of one request ``answer_row-suffix``."""
    answer, _, row = request_id.split("-")[0].rpartition("_")
    return int(row) + int(answer or 0)


def _repeated(values: list[Any], numbers: list[int]) -> list[Any]:
    """What each request has, once for each of its answers."""
    return [value for value, number in zip(values, numbers, strict=True) for _ in range(number)]


def _tokens(rng: np.random.Generator, count: int) -> list[int]:
    return [int(token) for token in rng.integers(3, 4096, count)]


def _families(
    rng: np.random.Generator,
    *,
    requests: int,
    families: int,
    common: tuple[int, int],
    own: tuple[int, int],
) -> list[list[int]]:
    """Prompts that begin like one of a few families and end like no other."""
    beginnings = [_tokens(rng, int(rng.integers(*common))) for _ in range(families)]
    return [
        beginnings[rng.integers(families)] + _tokens(rng, int(rng.integers(*own)))
        for _ in range(requests)
    ]


def main() -> None:
    """Record the workloads named on the command line."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    model, folder, *names = sys.argv[1:]
    for name in names:
        name, _, times = name.partition(":")
        plain = name.removeprefix(ASYNC)
        run = workload(plain)
        run = replace(run, blocks=1 + (run.blocks - 1) * int(times or 1))
        recorded = record(model, run, async_scheduling=plain != name)
        (Path(folder) / f"{name}.json").write_text(json.dumps({"name": name, **recorded}))


if __name__ == "__main__":
    main()

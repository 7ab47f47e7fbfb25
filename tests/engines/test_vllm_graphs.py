"""CUDA graphs as we think that vLLM takes them, against vLLM's own code, on a CPU.

Nothing is captured: which graph a step would replay is decided on the host. vLLM has two such
deciders, of its older and of its newer model runner.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from blendplan.hardware.engine_limits import EngineLimits
from blendplan.hardware.lookup import gpu_spec
from blendplan.simulator.cuda_graphs import StepSizes
from blendplan.simulator.engine_graphs import ENGINE_GRAPHS, vllm_graphs

# Imported in this process, where warnings are errors; these are of the engine.
pytestmark = pytest.mark.filterwarnings("ignore")

A100 = gpu_spec("a100-80g")
MODES = ("FULL_AND_PIECEWISE", "PIECEWISE", "FULL", "FULL_DECODE_ONLY", "NONE")


def config_of(sizes: list[int], limits: EngineLimits, mode: str, largest: int | None) -> Any:
    """What the deciders read of a `VllmConfig`."""
    from vllm.config import CompilationConfig
    from vllm.config.compilation import CompilationMode, CUDAGraphMode

    compilation = CompilationConfig(
        mode=CompilationMode.VLLM_COMPILE,
        cudagraph_mode=CUDAGraphMode[mode],
    )
    # None, which a user cannot give, is what vLLM has where a user gives nothing.
    compilation.cudagraph_capture_sizes = sizes or None
    compilation.max_cudagraph_capture_size = largest
    compilation.set_splitting_ops_for_v1(all2all_backend="")
    return SimpleNamespace(
        compilation_config=compilation,
        scheduler_config=SimpleNamespace(
            max_num_seqs=limits.max_num_seqs, max_num_batched_tokens=limits.max_num_batched_tokens
        ),
        parallel_config=SimpleNamespace(tensor_parallel_size=1, data_parallel_size=1),
        cache_config=SimpleNamespace(use_kda_recoverssm=False),
        model_config=SimpleNamespace(enforce_eager=False),
        speculative_config=None,
        lora_config=None,
        num_speculative_tokens=0,
        uniform_decode_query_len=1,
        performance_mode="balanced",
    )


def older(sizes: list[int], limits: EngineLimits, mode: str) -> Any:
    """Graph and tokens of a step by `CudagraphDispatcher`."""
    from vllm.config.compilation import CUDAGraphMode
    from vllm.v1.cudagraph_dispatcher import CudagraphDispatcher

    dispatcher = CudagraphDispatcher(config_of(sizes, limits, mode, max(sizes)))
    dispatcher.initialize_cudagraph_keys(CUDAGraphMode[mode])

    def graph_of(tokens: int, decode: bool) -> tuple[str, int]:
        found, batch = dispatcher.dispatch(tokens, uniform_decode=decode)
        return found.name, batch.num_tokens

    return graph_of


def newer(sizes: list[int], limits: EngineLimits, mode: str, patch: pytest.MonkeyPatch) -> Any:
    """Graph and tokens of a step by `CudaGraphManager`."""
    from vllm.config.compilation import CUDAGraphMode
    from vllm.v1.worker.gpu import cudagraph_utils

    alone = SimpleNamespace(is_first_rank=True, is_last_rank=True)
    patch.setattr(cudagraph_utils, "get_pp_group", lambda: alone)
    patch.setattr(cudagraph_utils.current_platform, "get_global_graph_pool", lambda: None)
    manager = cudagraph_utils.CudaGraphManager(
        config_of(sizes, limits, mode, max(sizes)), "cpu", CUDAGraphMode[mode], 1
    )
    manager._graphs_captured = True  # as `capture` says when it is done

    def graph_of(tokens: int, decode: bool) -> tuple[str, int]:
        # A batch with prompts has no uniform length; how many requests it has matters to nobody.
        requests = tokens if decode else min(tokens, limits.max_num_seqs)
        found = manager.dispatch(requests, tokens, 1 if decode else None, 0)
        return found.cg_mode.name, found.num_tokens

    return graph_of


def test_every_step_gets_the_graph_that_vllm_gives_it(
    vllm: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(12)
    seen: dict[str, int] = {}
    for _ in range(60):
        batched = int(rng.integers(1, 600))
        limits = EngineLimits(100_000, int(rng.integers(1, 300)), batched)
        count = int(rng.integers(1, 30))
        sizes = sorted({int(size) for size in rng.integers(1, batched + 1, count)})
        for mode in MODES:
            graphs = vllm_graphs(sizes, limits.max_num_seqs, mode)
            # With FULL, the graphs of all steps are full ones.
            names = {"decode": "FULL", "mixed": "PIECEWISE", "none": "NONE"}
            names |= {"mixed": "FULL"} if mode == "FULL" else {}
            for decider in (
                older(sizes, limits, mode),
                newer(sizes, limits, mode, monkeypatch),
            ):
                for decode, most in ((False, batched), (True, min(batched, limits.max_num_seqs))):
                    for tokens in {1, most, *(int(n) for n in rng.integers(1, most + 1, 30))}:
                        kind, padded = graphs.graph_of(tokens, decode=decode)
                        name = names[kind]
                        assert decider(tokens, decode) == (name, padded), (mode, sizes, limits)
                        seen[name] = seen.get(name, 0) + 1
    assert min(seen.values()) > 1000 and len(seen) == 3


def steps_of(rng: np.random.Generator, limits: EngineLimits) -> StepSizes:
    """A run at random: a few common sizes of mixed steps, and others."""
    most = min(limits.max_num_seqs, limits.max_num_batched_tokens)
    mixed = {int(size): 1 for size in rng.integers(1, limits.max_num_batched_tokens + 1, 50)}
    mixed |= {int(size): 500 for size in rng.integers(1, limits.max_num_batched_tokens + 1, 3)}
    return StepSizes(mixed, {int(size): 3 for size in rng.integers(1, most + 1, 60)})


def test_sizes_are_those_that_vllm_keeps(vllm: None) -> None:
    from vllm.config import VllmConfig

    rng = np.random.default_rng(13)
    for number in range(200):
        limits = EngineLimits(100_000, int(rng.integers(1, 1100)), int(rng.integers(1, 5000)))
        own = ENGINE_GRAPHS["vllm"].own(limits, A100, 1)
        unasked = config_of([], limits, "FULL_AND_PIECEWISE", None)
        VllmConfig._set_cudagraph_sizes(unasked)
        assert unasked.compilation_config.cudagraph_capture_sizes == own.mixed, (number, limits)
        chosen = ENGINE_GRAPHS["vllm"].chosen(steps_of(rng, limits), limits, A100, 1)
        given = config_of(chosen.mixed, limits, "FULL_AND_PIECEWISE", None)
        VllmConfig._set_cudagraph_sizes(given)
        kept = given.compilation_config
        assert kept.cudagraph_capture_sizes == chosen.mixed, (number, limits)
        assert kept.max_cudagraph_capture_size == chosen.mixed[-1]

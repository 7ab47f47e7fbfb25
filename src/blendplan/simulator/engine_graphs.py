"""The CUDA graphs of vLLM and of SGLang: which sizes they allow, and which they take by themselves.

Memory is not priced. vLLM measures what its graphs take when it starts and makes the KV cache that
much smaller; SGLang sets 8 MiB aside for each prefill graph and 2 MiB for each request of the
largest decode graph (srt/arg_groups/memory_hook.py). So there are no more sizes than the engine
would capture by itself, and none beyond what is said here.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

from blendplan.hardware.engine_limits import EngineLimits
from blendplan.hardware.gpu import GpuSpec
from blendplan.simulator.cuda_graphs import (
    GraphSizes,
    StepSizes,
    best_sizes,
    fill_gaps,
    graph_use,
)

MOST_TOKENS = 2048
"""Largest size that is chosen for vLLM.

The kernels of a larger step take far longer than it takes to launch them one by one; and a graph
keeps room for what its pieces compute, for an 8B Llama about 0.1 MiB a token.
"""
_SPARE = 8
"""One of so many sizes is for steps that nobody expects."""
_VLLM_CEILING, _VLLM_BLACKWELL_CEILING = 512, 1024
_BLACKWELL = ("b200", "gb200", "b300", "gb300")
_SGLANG_PADDING = 2.0
# GiB of device memory below which, and largest decode graph with tp under 4 and from 4 on.
_SGLANG_DECODE = ((20, 8, 8), (35, 48, 160), (60, 32, 160), (160, 256, 512))
_SGLANG_DECODE_MOST = 512


class EngineGraphs(NamedTuple):
    """How an engine takes CUDA graphs.

    Attributes:
        own: the graphs that it captures unasked, given its limits, the GPU and the
            tensor-parallel degree.
        chosen: those for the steps of a run; same arguments after them.
        captured: how it takes graphs of these sizes, for mixed steps and for decode steps.
    """

    own: Callable[[EngineLimits, GpuSpec, int], GraphSizes]
    chosen: Callable[[StepSizes, EngineLimits, GpuSpec, int], GraphSizes]
    captured: Callable[[list[int], list[int]], GraphSizes]


def vllm_graphs(
    sizes: list[int], max_num_seqs: int, mode: str = "FULL_AND_PIECEWISE"
) -> GraphSizes:
    """What vLLM captures of one list of sizes.

    It has one list for both kinds of step: full graphs for decode steps, of the sizes that so many
    requests reach; piecewise ones, or full ones too, of all sizes
    (vllm/v1/worker/gpu/cudagraph_utils.py and vllm/v1/cudagraph_dispatcher.py, 0.32).

    Args:
        sizes: ascending.
        max_num_seqs: most requests that may run at once.
        mode: ``cudagraph_mode``.
    """
    full = [size for size in sizes if size <= max_num_seqs]
    return GraphSizes(
        mixed=list(sizes) if mode in ("FULL_AND_PIECEWISE", "PIECEWISE", "FULL") else [],
        decode=full if mode in ("FULL_AND_PIECEWISE", "FULL_DECODE_ONLY") else [],
    )


def _vllm_own(limits: EngineLimits, gpu: GpuSpec, tp: int) -> GraphSizes:
    """As `VllmConfig._set_cudagraph_sizes` (vllm/config/vllm.py) without speculative decoding."""
    most = _VLLM_BLACKWELL_CEILING if gpu.name.lower() in _BLACKWELL else _VLLM_CEILING
    seqs, batched = limits.max_num_seqs, limits.max_num_batched_tokens
    ceiling = min(2 * seqs, most)
    largest = min(batched, ceiling)
    grid = (1, 2, 4, *range(8, 256, 8), *range(256, largest + 1, 16))
    sizes = {size for size in grid if size <= largest}
    # The largest batch of decodes, and a full step, where they are within the ceiling.
    sizes |= {size for size in (seqs, batched) if size <= min(batched, ceiling)}
    return vllm_graphs(sorted(sizes), seqs)


def _vllm_chosen(steps: StepSizes, limits: EngineLimits, gpu: GpuSpec, tp: int) -> GraphSizes:
    seqs = limits.max_num_seqs
    reach = min(limits.max_num_batched_tokens, max(seqs, MOST_TOKENS))
    both = {
        size: steps.mixed.get(size, 0) + steps.decode.get(size, 0)
        for size in {*steps.mixed, *steps.decode}
        if size <= reach
    }
    own = len(_vllm_own(limits, gpu, tp).mixed)
    # Every batch of decodes keeps its full graph.
    sizes = _with_spare(both, own, {min(seqs, reach)})
    return vllm_graphs(sizes, seqs)


def _sglang_own(limits: EngineLimits, gpu: GpuSpec, tp: int) -> GraphSizes:
    """As `generate_decode_cuda_graph_batch_sizes` and its sibling for prefill (srt/arg_groups)."""
    gib = gpu.memory_bytes / 2**30
    most = next(
        (many if tp >= 4 else few for below, few, many in _SGLANG_DECODE if gib < below),
        _SGLANG_DECODE_MOST,
    )
    batched = limits.max_num_batched_tokens
    prefill = [
        *(*range(4, 33, 4), *range(48, 257, 16), *range(288, 513, 32), *range(576, 1025, 64)),
        *(*range(1280, 4097, 256), *range(4608, batched + 1, 512)),
    ]
    return _sglang_graphs(
        [size for size in prefill if size <= batched],
        _sglang_decode_grid(min(most, limits.max_num_seqs)),
    )


def _sglang_decode_grid(most: int) -> list[int]:
    grid = (1, 2, 4, 8, 12, *range(16, 257, 8), *range(272, 512, 16), *range(512, most + 1, 32))
    return sorted({size for size in grid if size <= most} | {most})


def _sglang_chosen(steps: StepSizes, limits: EngineLimits, gpu: GpuSpec, tp: int) -> GraphSizes:
    own = _sglang_own(limits, gpu, tp)
    # Memory is set aside by the largest decode graph, so it is an eighth above what is expected,
    # with as many below it as there would be for a largest one that a user had set.
    largest = max(steps.decode, default=0)
    largest = min(limits.max_num_seqs, max(largest + -(-largest // 8), max(own.decode)))
    batched = limits.max_num_batched_tokens
    mixed = {size: number for size, number in steps.mixed.items() if size <= batched}
    return _sglang_graphs(
        _with_spare(mixed, len(own.mixed) or 1, {batched}, _SGLANG_PADDING),
        _with_spare(steps.decode, len(_sglang_decode_grid(largest)), {largest}),
    )


def _sglang_graphs(prefill: list[int], decode: list[int]) -> GraphSizes:
    """SGLang has a list for each kind of step, and no graph where prefill would pad too much."""
    return GraphSizes(prefill, decode, falls_back=False, most_padding=_SGLANG_PADDING)


def _with_spare(
    steps: Mapping[int, int], most: int, must: set[int], most_padding: float = float("inf")
) -> list[int]:
    """The best sizes for the steps, and a few for steps that nobody expects."""
    for_steps = max(most - most // _SPARE, min(most, len(must) + 1))
    return fill_gaps(best_sizes(steps, for_steps, must=must, most_padding=most_padding), most)


ENGINE_GRAPHS: Mapping[str, EngineGraphs] = {
    "vllm": EngineGraphs(_vllm_own, _vllm_chosen, GraphSizes),
    "sglang": EngineGraphs(_sglang_own, _sglang_chosen, _sglang_graphs),
}
"""By the name of the engine."""


def graphs_in(engine: Mapping[str, Any]) -> dict[str, GraphSizes]:
    """The graphs of each engine in the ``engine`` object of a plan's metadata."""
    return {
        name: ENGINE_GRAPHS[name].captured(list(sizes["mixed"]), list(sizes["decode"]))
        for name, sizes in engine["graph_sizes"].items()
        if name in ENGINE_GRAPHS
    }


def graph_uses(engine: Mapping[str, Any], gpu: GpuSpec, tp: int) -> dict[str, Any]:
    """What the graphs of a plan do in each engine, beside those that it captures unasked.

    Args:
        engine: object of that name in a plan's metadata.
        gpu, tp: hardware and tensor-parallel degree.

    Returns:
        by engine ``sizes`` and ``own_sizes``, both with ``mixed`` and ``decode``, and ``use`` and
        ``own_use`` with the shares of `GraphUse`.
    """
    steps, limits = StepSizes.from_metadata(engine), EngineLimits.from_metadata(engine)
    uses = {}
    for name, graphs in graphs_in(engine).items():
        own = ENGINE_GRAPHS[name].own(limits, gpu, tp)
        uses[name] = {
            "sizes": graphs.as_metadata(),
            "own_sizes": own.as_metadata(),
            "use": asdict(graph_use(steps, graphs)),
            "own_use": asdict(graph_use(steps, own)),
        }
    return uses

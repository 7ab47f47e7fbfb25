"""CUDA graphs as we think that SGLang takes them, against SGLang's own code, on a CPU.

Nothing is captured: which graph a batch would replay is decided on the host.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from blendplan.hardware.engine_limits import EngineLimits
from blendplan.hardware.gpu import GpuSpec
from blendplan.hardware.lookup import gpu_names, gpu_spec
from blendplan.simulator.cuda_graphs import StepSizes
from blendplan.simulator.engine_graphs import ENGINE_GRAPHS

# Imported in this process, where warnings are errors; these are of the engine.
pytestmark = pytest.mark.filterwarnings("ignore")

SGLANG = ENGINE_GRAPHS["sglang"]


def resolved(
    limits: EngineLimits,
    gpu: GpuSpec,
    tp: int,
    patch: pytest.MonkeyPatch,
    **given: Any,
) -> Any:
    """SGLang's graph settings on that GPU, from what a `Launch` and the user say."""
    from sglang.srt.arg_groups import memory_hook
    from sglang.srt.model_executor.cuda_graph_config import default_cuda_graph_config

    patch.setattr(
        memory_hook, "get_device_memory_capacity", lambda device: gpu.memory_bytes / 2**20
    )
    patch.setattr(memory_hook, "use_mla_backend", lambda server_args: False)
    config = default_cuda_graph_config()
    config.decode.bs, config.prefill.bs = given.get("decode"), given.get("prefill")
    asked = SimpleNamespace(
        device="cuda",
        model_path="a-model",
        cuda_graph_config=config,
        chunked_prefill_size=limits.max_num_batched_tokens,
        max_running_requests=limits.max_num_seqs,
        max_total_tokens=None,
        tp_size=tp,
        pp_size=1,
        disable_cuda_graph_padding=False,
        speculative_algorithm=None,
        mem_fraction_static=0.8,
        enable_symm_mem=False,
        ple_offload_backend="cpu",
        _cuda_graph_config_locked=set(),
        _resolved_overrides=[],
    )
    told: dict[str, Any] = {}
    patch.setattr(
        memory_hook, "declare_resolution", lambda _, source, **values: told.update(values)
    )
    import sglang.srt.arg_groups.model_overrides.qwen3_vl as qwen

    patch.setattr(qwen, "expand_multimodal_decode_graph_to_running_limit", lambda *_: None)
    memory_hook.handle_gpu_memory_settings(asked)
    return told.get("cuda_graph_config", config)


def steps_of(rng: np.random.Generator, limits: EngineLimits) -> StepSizes:
    """A run at random: a few common sizes of mixed steps, and others."""
    batched = limits.max_num_batched_tokens
    mixed = {int(size): 1 for size in rng.integers(1, batched + 1, 50)}
    mixed |= {int(size): 500 for size in rng.integers(1, batched + 1, 3)}
    return StepSizes(mixed, {int(size): 3 for size in rng.integers(1, limits.max_num_seqs + 1, 60)})


def test_sizes_are_those_that_sglang_has(sglang: None, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(15)
    for name in gpu_names():
        for tp in (1, 2, 4, 8):
            gpu = gpu_spec(name)
            seqs, batched = int(rng.integers(1, 1100)), int(rng.integers(4, 17_000))
            limits = EngineLimits(100_000, seqs, batched)
            own = SGLANG.own(limits, gpu, tp)
            config = resolved(limits, gpu, tp, monkeypatch)
            assert (config.prefill.bs, config.decode.bs) == (own.mixed, own.decode), (name, tp)
            chosen = SGLANG.chosen(steps_of(rng, limits), limits, gpu, tp)
            config = resolved(
                limits, gpu, tp, monkeypatch, decode=chosen.decode, prefill=chosen.mixed
            )
            assert (config.prefill.bs, config.decode.bs) == (chosen.mixed, chosen.decode)
            assert config.decode.max_bs == chosen.decode[-1]


def test_every_batch_gets_the_graph_that_sglang_gives_it(sglang: None) -> None:
    from sglang.srt.model_executor.cuda_graph_config import Backend
    from sglang.srt.model_executor.runner.decode_cuda_graph_runner import DecodeCudaGraphRunner
    from sglang.srt.model_executor.runner.prefill_cuda_graph_runner import PrefillCudaGraphRunner

    def prefill_graph(sizes: list[int], tokens: int) -> tuple[str, int]:
        pad = PrefillCudaGraphRunner._pad_to_bucket
        runner = SimpleNamespace(
            capture_num_tokens=sizes,
            max_num_tokens=max(sizes),
            prefill_backend_name=Backend.BREAKABLE,
            max_context_size=None,
            max_seq_len=None,
            has_mha_companion_layers=False,
            _is_full_backend=False,
            _captured_attn_metadata_max_bs=None,
            _has_uncapturable_chunked_prefix=lambda prefix_lens: False,
            _pad_to_bucket=pad,
        )
        replays = PrefillCudaGraphRunner.can_replay_locally(
            runner,
            batch_size=1,
            num_tokens=tokens,
            input_embeds=None,
            replace_embeds=None,
            prefix_lens=None,
            is_target_verify=False,
            capture_hidden_mode=None,
            return_logprob=False,
            is_mixed=True,
        )
        return ("mixed", pad(tokens, sizes)) if replays else ("none", tokens)

    rng = np.random.default_rng(16)
    seen: dict[str, int] = {}
    for _ in range(200):
        most = int(rng.integers(1, 3000))
        mixed, decode = (
            sorted({int(size) for size in rng.integers(1, most + 1, rng.integers(1, 40))})
            for _ in range(2)
        )
        graphs = SGLANG.captured(mixed, decode)
        for tokens in rng.integers(1, most + 1, 50).tolist():
            found = prefill_graph(mixed, tokens)
            assert graphs.graph_of(tokens, decode=False) == found, (mixed, tokens)
            seen[found[0]] = seen.get(found[0], 0) + 1
            kind, size = graphs.graph_of(tokens, decode=True)
            # A batch of decodes has a graph where it is not larger than the largest one.
            assert (kind == "decode") == (tokens <= decode[-1])
            if kind == "decode":
                assert size == DecodeCudaGraphRunner._pad_to_bucket(tokens, decode)
    assert min(seen.values()) > 500 and len(seen) == 2

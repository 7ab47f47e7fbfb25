"""A folder of small made-up tables of kernel times, with the traps of the published ones."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from blendplan.cost.operators.decode_attention import DecodeAttentionModel
from blendplan.cost.operators.gemm import OPERAND_SETS, GemmModel, GemmParameters
from blendplan.cost.operators.of_gpu import (
    UNMEASURED_DECODE,
    UNMEASURED_GEMM,
    UNMEASURED_PREFILL,
)
from blendplan.cost.operators.prefill_attention import PrefillAttentionModel
from blendplan.hardware.gpu import GpuSpec

TRUE_GEMM = UNMEASURED_GEMM._replace(flop_share=0.6, bandwidth_share=0.7, quantise_passes=0.0)
TRUE_DECODE = UNMEASURED_DECODE._replace(bandwidth_share=0.6)
TRUE_PREFILL = UNMEASURED_PREFILL._replace(flop_share_128=0.4)
LABEL = "h100-sxm"  # as tables call it
ABSURD_MS = 1e4


def write_kernel_tables(folder: Path, gpu: GpuSpec) -> Path:
    """Tables of one GPU; rows that nobody should learn from have absurd times."""
    rng = np.random.default_rng(0)
    _write(folder / "gemm.parquet", _gemm(gpu, rng))
    _write(folder / "decode_attention.parquet", _decode(gpu, rng))
    _write(folder / "context_attention.parquet", _context(gpu, rng))
    _write(folder / "all_reduce.parquet", _all_reduce())
    _write(folder / "linear_ops.parquet", _linear(gpu))
    return folder


def _write(path: Path, columns: dict[str, object]) -> None:
    pq.write_table(pa.table(columns), path)


def _gemm(gpu: GpuSpec, rng: np.random.Generator) -> dict[str, object]:
    m = 2 ** rng.integers(0, 13, 240)
    n, k = 1024 * rng.integers(1, 16, (2, 240))
    time_ms = 1e3 * GemmModel(gpu, "bf16", TRUE_GEMM).predict(m, n, k, operand_sets=OPERAND_SETS)
    operands = np.array(["random"] * 240, object)
    operands[::4] = "uninitialised_weight"
    time_ms[::4] = ABSURD_MS
    n[1::40], time_ms[1::40] = 256, ABSURD_MS  # too small to learn from
    names = {"gpu": [LABEL] * 240, "engine": ["sglang"] * 240, "dtype": ["bf16"] * 240}
    return {**names, "operands": operands, "m": m, "n": n, "k": k, "time_ms": time_ms}


def _decode(gpu: GpuSpec, rng: np.random.Generator) -> dict[str, object]:
    batch, context = 2 ** rng.integers(3, 9, 300), 2 ** rng.integers(9, 14, 300)
    model = DecodeAttentionModel(gpu, 16.0, TRUE_DECODE)
    time_ms = 1e3 * model.predict(batch, context, 32, 8, 128)
    in_cache = batch * context * 4096 < 1.5 * gpu.l2_bytes
    time_ms[in_cache] = ABSURD_MS
    kernel = np.array(["slow_kernel", "fast_kernel"], object)[np.arange(300) % 2]
    time_ms[kernel == "slow_kernel"] *= 2
    engine = np.where(kernel == "fast_kernel", "vllm", "sglang")
    return {
        "gpu": [LABEL] * 300,
        "engine": engine,
        "kernel": kernel,
        "kv_dtype": ["bf16"] * 300,
        "batch": batch,
        "ctx_len": context,
        "heads": [32] * 300,
        "kv_heads": [8] * 300,
        "head_dim": [128] * 300,
        "time_ms": time_ms,
    }


def _context(gpu: GpuSpec, rng: np.random.Generator) -> dict[str, object]:
    batch, new = 2 ** rng.integers(0, 5, 200), 128 * rng.integers(1, 40, 200)
    model = PrefillAttentionModel(gpu, parameters=TRUE_PREFILL)
    time_ms = 1e3 * model.predict(batch, new, 0, 32, 8, 128)
    time_ms[new < 512] = ABSURD_MS
    return {
        "gpu": [LABEL] * 200,
        "engine": ["vllm"] * 200,
        "kernel": ["fast_kernel"] * 200,
        "attn_dtype": ["bf16"] * 200,
        "kv_dtype": ["bf16"] * 200,
        "batch": batch,
        "seq_len": new,
        "heads": [32] * 200,
        "kv_heads": [8] * 200,
        "head_dim": [128] * 200,
        "time_ms": time_ms,
    }


def _all_reduce() -> dict[str, object]:
    sizes = np.tile(2.0 ** np.arange(10, 28), 2)
    node = ["dgx_8_per_node"] * 18 + ["pairs_2_per_node"] * 18
    time_ms = 1e3 * (1e-5 + sizes / 1e11)
    time_ms[18:] = ABSURD_MS  # four ranks at two a node cross the network
    return {
        "gpu": [LABEL] * 36,
        "node": node,
        "source": ["vllm_graph"] * 36,
        "dtype": ["bf16"] * 36,
        "ranks": [4] * 36,
        "bytes": sizes,
        "time_ms": time_ms,
    }


def _linear(gpu: GpuSpec) -> dict[str, object]:
    """One token count of a Llama-3-8B layer, a tenth slower than the GEMM table says."""
    shapes = np.array([(6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336), (0, 0)])
    tokens = np.full(5, 512)
    n, k = shapes.T
    time_ms = 1.1e3 * GemmModel(gpu, "bf16", GemmParameters(*TRUE_GEMM)).predict(tokens, n, k)
    time_ms[-1] = 1.0  # an op that is no GEMM
    return {
        "gpu": ["h100-80g"] * 5,
        "model": ["Meta-Llama-3-8B"] * 5,
        "tp": [1] * 5,
        "op": ["attn_pre_proj", "attn_post_proj", "mlp_up_proj", "mlp_down_proj", "add"],
        "num_tokens": tokens,
        "n": n,
        "k": k,
        "time_ms": time_ms,
    }

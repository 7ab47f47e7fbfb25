"""How far the prices of windows, states, latent attention and experts are from published times.

    pip download --no-deps aiconfigurator-core==0.12.0 && unzip aiconfigurator_core-*.whl
    python benchmarks/layer_kinds.py --data aiconfigurator_core/systems/data [--json]

The tables are of vLLM 0.24 and SGLang 0.5.14 (Apache-2.0, Copyright (c) 2025-2026 NVIDIA
CORPORATION & AFFILIATES). Rows are split in halves by a fixed seed: the stated constants of windows
and states were chosen on the first half, errors of both are printed. Latent attention and experts
have no constant that was chosen on these tables.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from blendplan.cost.attention_prices import INDEXER_FLOP_SHARE, LATENT_FLOP_SHARE
from blendplan.cost.linear_times import gemm_s
from blendplan.cost.operators.decode_attention import WINDOW_EDGE
from blendplan.cost.operators.of_gpu import operators
from blendplan.cost.operators.recurrence import decode_s, prefill_s, recurrence_of
from blendplan.hardware.gpu import GpuSpec
from blendplan.hardware.layers import State
from blendplan.hardware.linear_shapes import LinearShape
from blendplan.hardware.lookup import gpu_spec

GPUS = {"h100_sxm": "h100-80g", "h200_sxm": "h200", "b200_sxm": "b200"}
VLLM, SGLANG = "vllm/0.24.0", "sglang/0.5.14"
# A cache this much larger than L2 is read from memory; smaller ones are read again and again.
COLD = 1.5
MOST_TOKENS = 16384
Columns = dict[str, NDArray[np.float64]]


class Found(NamedTuple):
    """Predicted over measured times of one kind of call, and what they are of."""

    what: str
    gpu: str
    ratio: NDArray[np.float64]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="a folder for each GPU in it")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = []
    for folder, name in GPUS.items():
        gpu = gpu_spec(name)
        for measure in (windows, states, latent, indexers, experts):
            rows += [_row(found) for found in measure(arguments.data / folder, gpu)]
    if arguments.json:
        print(json.dumps(rows, indent=1))
        return 0
    print("| what | GPU | rows | MAPE, first half | second half | median ratio |")
    print("|---|---|---|---|---|---|")
    for row in sorted(rows, key=lambda row: str(row["what"])):
        first, second = f"{row['first_half']:.1f}", f"{row['second_half']:.1f}"
        print(
            f"| {row['what']} | {row['gpu']} | {row['rows']:,} | {first} | {second} "
            f"| {row['median_ratio']:.2f} |"
        )
    return 0


def _row(found: Found) -> dict[str, str | int | float]:
    first = np.random.default_rng(0).random(len(found.ratio)) < 0.5
    off = 100.0 * np.abs(found.ratio - 1.0)
    return {
        "what": found.what,
        "gpu": found.gpu,
        "rows": len(off),
        "first_half": float(off[first].mean()),
        "second_half": float(off[~first].mean()),
        "median_ratio": float(np.median(found.ratio)),
    }


def table(path: Path, **wanted: object) -> Columns:
    """Columns of a table as numbers where they are, of the rows that have the wanted values."""
    columns = {name: np.array(values) for name, values in pq.read_table(path).to_pydict().items()}
    keep = np.ones(len(columns["latency"]), np.bool_)
    for name, value in wanted.items():
        keep &= columns[name] == value
    return {
        name: column[keep].astype(np.float64) if column.dtype.kind in "if" else column[keep]
        for name, column in columns.items()
    }


def windows(folder: Path, gpu: GpuSpec) -> Iterator[Found]:
    """Attention of vLLM over windows that are full, with caches of 16 and of 8 bits."""
    for dtype, bits in (("bfloat16", 16.0), ("fp8", 8.0)):
        used = operators(gpu, kv_bits=bits)
        c = table(
            folder / f"attention/{VLLM}/generation_attention_perf.parquet", kv_cache_dtype=dtype
        )
        context, window = c["step"] + 1.0, c["window_size"]
        heads = (c["num_heads"], c["num_key_value_heads"], c["head_dim"])
        predicted_s = used.decode.predict(
            c["batch_size"], np.minimum(context, window + WINDOW_EDGE), *heads
        )
        kv_bytes = 2.0 * c["batch_size"] * np.minimum(context, window) * heads[1] * heads[2]
        full = (context > 2 * window) & (kv_bytes * bits / 8 > COLD * gpu.l2_bytes)
        for size in (128, 1024, 8192):
            mine = full & (window == size)
            if mine.sum() > 10:
                ratio = (1e3 * predicted_s / c["latency"])[mine]
                yield Found(f"decode, window {size}, {bits:.0f}-bit KV", gpu.name, ratio)
        c = table(
            folder / f"attention/{VLLM}/context_attention_perf.parquet",
            kv_cache_dtype=dtype,
            attn_dtype="bfloat16",
        )
        new, window = c["isl"], c["window_size"]
        heads = (c["num_heads"], c["num_key_value_heads"], c["head_dim"])
        predicted_s = used.prefill.predict(
            c["batch_size"], new, 0, *heads, np.where(window > 0, window, np.inf)
        )
        wanted = (new >= 512) & (c["batch_size"] * new <= MOST_TOKENS) & (new > window)
        for size in (128, 1024, 8192):
            mine = wanted & (window == size)
            if mine.sum() > 10:
                ratio = (1e3 * predicted_s / c["latency"])[mine]
                yield Found(f"prefill, window {size}, {bits:.0f}-bit KV", gpu.name, ratio)


def states(folder: Path, gpu: GpuSpec) -> Iterator[Found]:
    """The gated delta rule of vLLM with its convolution, a layer's share of a step."""
    c = table(folder / f"linear_attention/{VLLM}/gdn_perf.parquet")
    keys = ("d_model", "batch_size", "seq_len", "num_k_heads", "num_v_heads")
    calls: dict[str, dict[tuple[float, ...], float]] = {}
    for row, kernel in enumerate(c["kernel_source"]):
        of_kernel = calls.setdefault(str(kernel).split("_")[0] + str(c["phase"][row]), {})
        of_kernel[tuple(c[key][row] for key in keys)] = 1e-3 * c["latency"][row]
    kernels = {"context": "chunkcontext", "generation": "fusedgeneration"}
    for phase, scan in kernels.items():
        convolution = f"causal{phase}"
        ratio = []
        for call in calls[scan].keys() & calls[convolution].keys():
            _, batch, length, k_heads, v_heads = call
            width = (2 * k_heads + v_heads) * 128
            heads = int(v_heads)
            state = State("gated_delta", int(3 * width), heads * 128**2, heads, 16, 32)
            layer = recurrence_of(state)
            if phase == "generation":
                each_s, any_s = decode_s(gpu, layer)
                predicted_s = batch * each_s + any_s
                wanted = batch * layer.state_bytes > COLD * gpu.l2_bytes
            else:
                predicted_s = float(prefill_s(gpu, layer, np.array(batch), np.array(length)))
                wanted = 512 <= batch * length <= MOST_TOKENS and length >= 256
            if wanted:
                ratio.append(predicted_s / (calls[scan][call] + calls[convolution][call]))
        name = "decode" if phase == "generation" else "prefill"
        yield Found(f"{name}, gated delta rule", gpu.name, np.array(ratio))


def latent(folder: Path, gpu: GpuSpec) -> Iterator[Found]:
    """Decode attention over one latent vector (SGLang), by query heads on the GPU."""
    c = table(folder / f"mla/{SGLANG}/generation_mla_perf.parquet", kv_cache_dtype="bfloat16")
    batch, context, heads = c["batch_size"], c["step"] + 1.0, c["num_heads"]
    kernel_s = operators(gpu).decode.predict(batch, context, heads, 1, 288.0)
    products = 2.0 * (2 * 512 + 64) * heads * batch * context
    predicted_s = np.hypot(kernel_s, products / (LATENT_FLOP_SHARE * gpu.flop_per_s))
    cold = (1152 * batch * context > COLD * gpu.l2_bytes) & (batch >= 4)
    for least, most in ((1, 16), (17, 64), (65, 128)):
        mine = cold & (heads >= least) & (heads <= most)
        ratio = (1e3 * predicted_s / c["latency"])[mine]
        yield Found(f"decode, latent, {least} to {most} heads", gpu.name, ratio)


def indexers(folder: Path, gpu: GpuSpec) -> Iterator[Found]:
    """Scores of the indexer of GLM-5 for prompts, and attention to the tokens that it chose."""
    place = folder / f"sparse_attention/{SGLANG}"
    for what, file, kept in (
        ("indexer", "glm5_mqa_logits_module", 1e9),
        ("chosen tokens", "glm5_dsa_attn_module", 2048.0),
    ):
        c = table(place / f"{file}_perf.parquet")
        batch, new, before = c["batch_size"], c["isl"], c["step"]
        inside = np.clip(kept - before, 0.0, new)
        pairs = batch * (inside * before + inside * (inside + 1) / 2 + (new - inside) * kept)
        if what == "indexer":
            rate, flop = INDEXER_FLOP_SHARE * gpu.peak_flop_per_s(8.0), 2.0 * 32 * 128
        else:
            rate, flop = LATENT_FLOP_SHARE * gpu.flop_per_s, 2.0 * (2 * 512 + 64) * 64
        mine = (new >= 512) & (batch * new <= MOST_TOKENS) & (pairs > 2e6)
        ratio = (1e3 * pairs * flop / rate / c["latency"])[mine]
        yield Found(f"prefill, {what}", gpu.name, ratio)


def experts(folder: Path, gpu: GpuSpec) -> Iterator[Found]:
    """Two grouped matrices of a mixture that tokens visit evenly, on one GPU (vLLM)."""
    dtypes = {"bfloat16": 16.0, "fp8_block": 8.0, "w4a16_mxfp4": 4.25, "nvfp4": 4.5}
    for dtype, bits in dtypes.items():
        c = table(
            folder / f"moe/{VLLM}/moe_perf.parquet",
            moe_dtype=dtype,
            distribution="balanced",
            moe_ep_size=1,
            moe_tp_size=1,
        )
        if len(c["latency"]) < 50:
            continue
        used = operators(gpu, weight_bits=bits)
        predicted_s = np.zeros(len(c["latency"]))
        names = ("hidden_size", "inter_size", "num_experts", "topk", "num_tokens")
        for row, (hidden, width, count, each, tokens) in enumerate(
            zip(*(c[name] for name in names), strict=True)
        ):
            copies = {"experts": int(count), "experts_per_token": int(each), "weight_bits": bits}
            into = LinearShape("expert_gate_up", int(2 * width), int(hidden), **copies)  # type: ignore[arg-type]
            out = LinearShape("expert_down", int(hidden), int(width), **copies)  # type: ignore[arg-type]
            step = np.array([tokens])
            predicted_s[row] = float((gemm_s(into, used, step) + gemm_s(out, used, step))[0])
        tokens = c["num_tokens"]
        for least, most in ((1, 64), (65, 1024), (1025, MOST_TOKENS)):
            mine = (tokens >= least) & (tokens <= most)
            ratio = (1e3 * predicted_s / c["latency"])[mine]
            yield Found(f"experts, {dtype}, {least} to {most} tokens", gpu.name, ratio)


if __name__ == "__main__":
    sys.exit(main())

"""Operator times written out plainly, one call at a time: what the compiled models must equal."""

import math

from blendplan.cost.operators.decode_attention import DecodeAttentionParameters
from blendplan.cost.operators.gemm import GemmParameters
from blendplan.cost.operators.prefill_attention import WINDOW_EDGE, PrefillAttentionParameters
from blendplan.hardware.gpu import GpuSpec


def norm(a: float, b: float, exponent: float) -> float:
    return float((a**exponent + b**exponent) ** (1 / exponent))


def gemm_s(
    p: GemmParameters,
    gpu: GpuSpec,
    m: float,
    n: float,
    k: float,
    sets: float,
    *,
    fp8: bool = False,
    weight_bits: float = 16,
) -> float:
    """bf16, or fp8 with the quantisation of its input; the result is bf16 either way."""
    bandwidth, sms = gpu.bandwidth_bytes_per_s, gpu.sm_count
    peak = gpu.fp8_flop_per_s if fp8 else gpu.flop_per_s
    token_bytes = 1 if fp8 else 2
    weight_bytes = min(weight_bits / 8, token_bytes)
    operands = token_bytes * m * k + weight_bytes * n * k + 2 * m * n
    rate = p.warm_multiple if operands * sets < gpu.l2_bytes else p.bandwidth_share
    times = []
    for tile_m in (64, 128, 256):
        for tile_n in (64, 128, 256):
            if tile_m * tile_n > 128 * 256:
                continue
            tiles = math.ceil(m / tile_m) * math.ceil(n / tile_n)
            for split in (1, 2, 3, 4, 6, 8, 12, 16):
                if split > 1 and (tiles > sms / 2 or tiles * split > 4 * sms or k / split < 128):
                    break
                depth = k / split
                math_s = 2 * tile_m * tile_n * depth / (p.flop_share * peak / sms)
                load_bytes = (token_bytes * tile_m + weight_bytes * tile_n) * depth
                load_s = load_bytes / (p.l2_multiple * bandwidth / sms)
                waves = tiles * split / sms
                if waves <= 1:
                    waves = 1
                else:
                    waves = waves + p.tail_share * (math.ceil(waves) - waves)
                compute_s = waves * (norm(math_s, load_s, p.tile_sharpness) + p.tile_s)
                compute_s = compute_s / (1 - p.sustained_loss * compute_s / (compute_s + 1e-3))
                traffic = operands + (4 * m * n * split if split > 1 else 0)
                joined = norm(compute_s, traffic / (rate * bandwidth), p.sharpness)
                times.append(joined + (p.split_s if split > 1 else 0))
    return p.launch_s + min(times) + p.quantise_passes * 2 * m * k / bandwidth


def decode_s(
    p: DecodeAttentionParameters,
    gpu: GpuSpec,
    batch: int,
    context: int,
    heads: int,
    kv_heads: int,
    dim: int,
    element_bytes: int,
) -> float:
    bandwidth = gpu.bandwidth_bytes_per_s
    slots = gpu.sm_count * p.units_per_sm
    contexts = batch * kv_heads
    tiles = math.ceil(context / p.tile_tokens)
    most = p.most_splits
    if heads == kv_heads:
        most = min(most, p.most_splits_ungrouped)
    splits = max(1, math.floor(min(slots / contexts, most, tiles)))
    unit_bytes = 2 * math.ceil(tiles / splits) * p.tile_tokens * dim * element_bytes
    unit_s = p.unit_s + unit_bytes / (p.sm_multiple * bandwidth / slots)
    if context > p.switch_tokens:
        unit_s *= 1 + p.switch_slowdown
    waves = contexts * splits / slots
    waves = 1 if waves <= 1 else waves + p.tail_share * (math.ceil(waves) - waves)
    traffic = (
        2 * contexts * context * dim * element_bytes + p.query_passes * 4 * batch * heads * dim
    )
    serial_s = p.context_s * contexts if batch <= 992 else 0
    memory_s = traffic / (p.bandwidth_share * bandwidth)
    return p.launch_s + norm(waves * unit_s, memory_s, p.sharpness) + serial_s


def prefill_s(
    p: PrefillAttentionParameters,
    gpu: GpuSpec,
    batch: int,
    new: int,
    cached: int,
    heads: int,
    kv_heads: int,
    dim: int,
    *,
    fp8: bool = False,
    kv_bytes: int = 2,
    window: float = math.inf,
) -> float:
    """For one of the head dimensions that kernels are compiled for."""
    slots = gpu.sm_count * p.units_per_sm
    peak = gpu.fp8_flop_per_s if fp8 else gpu.flop_per_s
    pair_s = 4 * dim / (getattr(p, f"flop_share_{dim}") * peak)
    units = batch * heads * math.ceil(new / p.tile_tokens)
    pairs = sum(min(cached + position + 0.5, window) for position in range(new))
    pairs += new * p.tile_tokens / 2
    longest: float = new + cached
    if longest > window:
        # Tiles at the far end of the window take in keys that no query looks at.
        pairs += WINDOW_EDGE * sum(cached + position >= window for position in range(new))
        longest = min(longest, window + p.tile_tokens + WINDOW_EDGE)
    work_s = batch * heads * pairs * pair_s + units * p.unit_s / slots
    waves = units / slots
    mean_s = work_s * (1 + p.tail_share * (math.ceil(waves) / waves - 1))
    slowest_s = longest * p.tile_tokens * pair_s * slots + p.unit_s
    passes = 4 * new * (p.query_passes * heads + p.kv_passes * kv_heads)
    traffic = batch * dim * (passes + 2 * kv_bytes * kv_heads * min(cached, window))
    joined = norm(mean_s, slowest_s, p.sharpness)
    tokens_s = p.token_s * batch * new
    return p.launch_s + joined + tokens_s + traffic / gpu.bandwidth_bytes_per_s

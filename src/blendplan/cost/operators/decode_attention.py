"""`DecodeAttentionModel`: time of one layer's decode attention, from work units and KV bytes."""

import math
from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from blendplan.cost.calibration.search import mean_absolute_share, minimise, sampled
from blendplan.hardware.gpu import GpuSpec
from blendplan.kernels.kernel import kernel

# FlashAttention 3 plans the splits of a batch in one thread block, up to this size.
MOST_PLANNED_SEQUENCES = 992
FIT_ROWS = 2500
# Tokens beyond a window that its tiles take in. Chosen on half of the windowed calls of H100, H200
# and B200 (docs/accuracy.md).
WINDOW_EDGE = 32.0


class DecodeAttentionParameters(NamedTuple):
    """What tells one decode attention kernel on one GPU from another.

    A unit is one KV head of one sequence, or a split of its context.

    Attributes:
        launch_s: time of the smallest call, the write of the new keys and values included.
        bandwidth_share: memory rate of all SMs, as a share of the datasheet's bandwidth.
        unit_s: start and end of one unit.
        sm_multiple: what one SM can load, as a multiple of its share of the bandwidth; more than 1,
            so that fewer units than SMs still get much of the bandwidth.
        units_per_sm: units that run on an SM at the same time; whole.
        tile_tokens: a unit's context is rounded up to a multiple of this.
        most_splits: most units that one context is split into.
        most_splits_ungrouped: the same with as many KV heads as query heads.
        tail_share: share of the idle SMs' time in the last wave that is really lost.
        query_passes: traffic of queries and results, each 32 bits an element.
        switch_tokens, switch_slowdown: contexts beyond so many tokens make each unit slower by
            this share, where the kernel changes its path.
        context_s: serial work for each KV head of each sequence, in batches small enough for the
            kernel to plan its splits on the GPU.
        sharpness: exponent of the norm that joins the units' time and the memory's.
    """

    launch_s: float
    bandwidth_share: float
    unit_s: float
    sm_multiple: float
    units_per_sm: float
    tile_tokens: float
    most_splits: float
    most_splits_ungrouped: float
    tail_share: float
    query_passes: float
    switch_tokens: float
    switch_slowdown: float
    context_s: float
    sharpness: float


BOUNDS: dict[str, tuple[float, float]] = {
    "launch_s": (0.0, 40e-6),
    "bandwidth_share": (0.15, 1.0),
    "unit_s": (0.0, 6e-6),
    "sm_multiple": (0.3, 5.0),
    "units_per_sm": (1.0, 4.0),
    "tile_tokens": (4.0, 9.0),
    "most_splits": (0.0, 5.0),
    "most_splits_ungrouped": (0.0, 5.0),
    "tail_share": (0.0, 1.0),
    "query_passes": (0.0, 16.0),
    "switch_tokens": (6.0, 11.0),
    "switch_slowdown": (0.0, 1.0),
    "context_s": (0.0, 4e-6),
    "sharpness": (1.0, 10.0),
}
# Ways that kernels are known to cut the work: units an SM, tile, tail, splits of ungrouped heads,
# a switch of paths at 256 or past 2,048 tokens.
STARTS = [
    DecodeAttentionParameters(
        launch_s=10e-6,
        bandwidth_share=0.85,
        unit_s=2e-6,
        sm_multiple=1.5,
        units_per_sm=units,
        tile_tokens=tile,
        most_splits=3.5,
        most_splits_ungrouped=ungrouped,
        tail_share=tail,
        query_passes=2.0,
        switch_tokens=switch,
        switch_slowdown=0.05,
        context_s=0.1e-6,
        sharpness=4.0,
    )
    for units in (1.0, 2.0, 4.0)
    for tile in (6.0, 7.0, 8.0)
    for tail in (0.1, 0.9)
    for ungrouped in (0.7, 3.5)
    for switch in (8.0, 11.0)
]
_POWERS_OF_2 = ("tile_tokens", "switch_tokens")
_POWERS_OF_E = ("most_splits", "most_splits_ungrouped")


class DecodeAttentionModel:
    """Time of one layer's attention of one new token per sequence, all contexts equally long.

    Units run in waves over the SMs. T = launch + (units' time^s + (bytes / memory rate)^s)^(1/s).

    Args:
        gpu: whose bandwidth the shares refer to.
        kv_bits: bits per element of the KV cache.
        parameters: from an earlier fit; else call `fit`.

    Attributes:
        parameters_: fitted parameters.
    """

    def __init__(
        self,
        gpu: GpuSpec,
        kv_bits: float = 16.0,
        parameters: DecodeAttentionParameters | None = None,
    ) -> None:
        self.gpu, self.kv_bits = gpu, kv_bits
        if parameters is not None:
            self.parameters_ = parameters

    def fit(
        self,
        batch: ArrayLike,
        context: ArrayLike,
        heads: ArrayLike,
        kv_heads: ArrayLike,
        head_dim: ArrayLike,
        time_s: ArrayLike,
    ) -> Self:
        """Fit to measured calls; leave out those whose KV cache stays in L2.

        Without calls of as many KV heads as query heads, these are taken to split like others.
        """
        measured_s = np.asarray(time_s, np.float64)
        chosen = sampled(len(measured_s), FIT_ROWS)
        columns = [
            np.asarray(column, np.float64)[chosen]
            for column in (batch, context, heads, kv_heads, head_dim)
        ]

        ungrouped_seen = bool((columns[2] == columns[3]).any())

        def parameters(vector: NDArray[np.float64]) -> DecodeAttentionParameters:
            found = _parameters(vector)
            if ungrouped_seen:
                return found
            return found._replace(most_splits_ungrouped=found.most_splits)

        def error(vector: NDArray[np.float64]) -> float:
            return mean_absolute_share(self._times(parameters(vector), columns), measured_s[chosen])

        self.parameters_ = parameters(minimise(error, list(BOUNDS.values()), STARTS))
        return self

    def predict(
        self,
        batch: ArrayLike,
        context: ArrayLike,
        heads: ArrayLike,
        kv_heads: ArrayLike,
        head_dim: ArrayLike,
    ) -> NDArray[np.float64]:
        """Seconds of each call; float64, the arguments broadcast.

        Args:
            batch: sequences.
            context: KV tokens that each reads, the new one included.
            heads, kv_heads: on this GPU.
            head_dim: elements of a head.
        """
        arguments = (batch, context, heads, kv_heads, head_dim)
        columns = np.broadcast_arrays(*(np.asarray(item, np.float64) for item in arguments))
        flat = [column.flatten() for column in columns]
        return self._times(self.parameters_, flat).reshape(columns[0].shape)

    def _times(
        self, parameters: DecodeAttentionParameters, columns: Sequence[NDArray[np.float64]]
    ) -> NDArray[np.float64]:
        batch, context, heads, kv_heads, head_dim = columns
        return _decode_times(
            parameters,
            batch,
            context,
            heads,
            kv_heads,
            head_dim,
            self.kv_bits / 8.0,
            float(self.gpu.sm_count),
            self.gpu.bandwidth_bytes_per_s,
        )


def _parameters(vector: NDArray[np.float64]) -> DecodeAttentionParameters:
    """Parameters of a vector in the units of the search: counts are sought by their logarithms."""
    values = dict(zip(DecodeAttentionParameters._fields, map(float, vector), strict=True))
    for name in _POWERS_OF_2:
        values[name] = 2.0 ** values[name]
    for name in _POWERS_OF_E:
        values[name] = math.exp(values[name])
    values["units_per_sm"] = float(round(values["units_per_sm"]))
    return DecodeAttentionParameters(**values)


@kernel
def _decode_times(
    parameters: DecodeAttentionParameters,
    batch: NDArray[np.float64],
    context: NDArray[np.float64],
    heads: NDArray[np.float64],
    kv_heads: NDArray[np.float64],
    head_dim: NDArray[np.float64],
    kv_element_bytes: float,
    sm_count: float,
    bandwidth: float,
) -> NDArray[np.float64]:
    p = parameters
    time_s = np.empty(len(batch))
    slots = sm_count * p.units_per_sm
    slot_rate = p.sm_multiple * bandwidth / slots
    for i in range(len(batch)):
        contexts = batch[i] * kv_heads[i]
        tiles = np.ceil(context[i] / p.tile_tokens)
        most = p.most_splits
        if heads[i] == kv_heads[i]:
            most = min(most, p.most_splits_ungrouped)
        splits = max(1.0, np.floor(min(slots / contexts, most, tiles)))
        unit_tokens = np.ceil(tiles / splits) * p.tile_tokens
        unit_s = p.unit_s + 2.0 * unit_tokens * head_dim[i] * kv_element_bytes / slot_rate
        if context[i] > p.switch_tokens:
            unit_s *= 1.0 + p.switch_slowdown
        waves = contexts * splits / slots
        if waves > 1.0:
            waves += p.tail_share * (np.ceil(waves) - waves)
        else:
            waves = 1.0
        units_s = waves * unit_s
        traffic = 2.0 * contexts * context[i] * head_dim[i] * kv_element_bytes
        traffic += p.query_passes * 4.0 * batch[i] * heads[i] * head_dim[i]
        memory_s = traffic / (p.bandwidth_share * bandwidth)
        longer, shorter = max(units_s, memory_s), min(units_s, memory_s)
        joined = longer * (1.0 + (shorter / longer) ** p.sharpness) ** (1.0 / p.sharpness)
        if batch[i] <= MOST_PLANNED_SEQUENCES:
            joined += p.context_s * contexts
        time_s[i] = p.launch_s + joined
    return time_s

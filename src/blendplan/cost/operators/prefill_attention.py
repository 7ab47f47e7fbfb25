"""`PrefillAttentionModel`: time of one layer's causal attention over new and cached tokens."""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from blendplan.cost.calibration.search import mean_absolute_share, minimise, sampled
from blendplan.hardware.gpu import GpuSpec
from blendplan.kernels.kernel import kernel

# Head dimensions that attention kernels are compiled for; others are padded to the next.
HEAD_DIMS = (64, 128, 192, 256, 512)
FIT_ROWS = 2000
# Keys beyond a window that its tiles take in, for each query whose window is full. Chosen on half
# of the windowed calls of H100, H200 and B200 (docs/accuracy.md).
WINDOW_EDGE = 64.0


class PrefillAttentionParameters(NamedTuple):
    """What tells one prefill attention kernel on one GPU from another.

    A unit is a tile of query tokens of one head of one sequence.

    Attributes:
        launch_s: time of the smallest call, the write of keys and values included.
        unit_s: start and end of one unit.
        tile_tokens: query tokens of a unit, as far as the slowest unit and the diagonal show it.
        units_per_sm: units that run on an SM at the same time; whole.
        tail_share: share of the idle SMs' time in the last wave that is really lost.
        sharpness: exponent of the norm that joins the mean unit's time and the slowest one's.
        token_s: of each new token, whatever its size: the cache is written token by token.
        query_passes, kv_passes: traffic of queries and results, and of new keys and values, each
            32 bits an element.
        flop_share_64 .. flop_share_512: matrix rate by head dimension, as a share of the
            datasheet's peak; softmax costs small heads more.
    """

    launch_s: float
    unit_s: float
    tile_tokens: float
    units_per_sm: float
    tail_share: float
    sharpness: float
    token_s: float
    query_passes: float
    kv_passes: float
    flop_share_64: float
    flop_share_128: float
    flop_share_192: float
    flop_share_256: float
    flop_share_512: float


BOUNDS: dict[str, tuple[float, float]] = {
    "launch_s": (0.0, 40e-6),
    "unit_s": (0.0, 10e-6),
    "tile_tokens": (5.0, 8.5),
    "units_per_sm": (0.6, 4.4),
    "tail_share": (0.0, 1.0),
    "sharpness": (1.0, 12.0),
    "token_s": (0.0, 20e-9),
    "query_passes": (0.0, 8.0),
    "kv_passes": (0.0, 12.0),
} | {f"flop_share_{dim}": (0.02, 1.2) for dim in HEAD_DIMS}
STARTS = [
    PrefillAttentionParameters(
        launch_s=10e-6,
        unit_s=1e-6,
        tile_tokens=tile,
        units_per_sm=units,
        tail_share=tail,
        sharpness=2.0,
        token_s=1e-9,
        query_passes=1.0,
        kv_passes=3.0,
        flop_share_64=share,
        flop_share_128=share,
        flop_share_192=share,
        flop_share_256=share,
        flop_share_512=share,
    )
    for tile in (5.5, 7.0)
    for units in (1.0, 2.0)
    for tail in (0.1, 0.8)
    for share in (0.2, 0.6)
]


class PrefillAttentionModel:
    """Time of one layer's attention of new tokens to themselves, causally, and to cached ones.

    T = launch + (waves x mean unit^s + slowest unit^s)^(1/s) + traffic / bandwidth.

    Args:
        gpu: whose peaks the shares refer to.
        attention_bits: bits per element of the matrix products; 8 uses the fp8 peak.
        kv_bits: bits per element of the KV cache.
        parameters: from an earlier fit; else call `fit`.

    Attributes:
        parameters_: fitted parameters.
    """

    def __init__(
        self,
        gpu: GpuSpec,
        attention_bits: float = 16.0,
        kv_bits: float = 16.0,
        parameters: PrefillAttentionParameters | None = None,
    ) -> None:
        self.gpu, self.attention_bits, self.kv_bits = gpu, attention_bits, kv_bits
        if parameters is not None:
            self.parameters_ = parameters

    def fit(
        self,
        batch: ArrayLike,
        new: ArrayLike,
        cached: ArrayLike,
        heads: ArrayLike,
        kv_heads: ArrayLike,
        head_dim: ArrayLike,
        time_s: ArrayLike,
    ) -> Self:
        """Fit to measured calls.

        Head dimensions without measurements take the rate of the nearest with some.
        """
        measured_s = np.asarray(time_s, np.float64)
        chosen = sampled(len(measured_s), FIT_ROWS)
        everything = np.full(len(measured_s), np.inf)
        arguments = (batch, new, cached, heads, kv_heads, head_dim, everything)
        columns = _columns([np.asarray(item, np.float64)[chosen] for item in arguments])
        seen = np.unique(_template(columns[-2]))
        bounds = dict(BOUNDS)
        for index, dim in enumerate(HEAD_DIMS):
            if index not in seen:
                bounds[f"flop_share_{dim}"] = (0.0, 0.0)

        def error(vector: NDArray[np.float64]) -> float:
            predicted_s = self._times(_parameters(vector), columns)
            return mean_absolute_share(predicted_s, measured_s[chosen])

        limits = list(bounds.values())
        starts = [np.clip(start, *np.array(limits).T) for start in STARTS]
        vector = minimise(error, limits, starts)
        shares = vector[-len(HEAD_DIMS) :]
        for index in range(len(HEAD_DIMS)):
            shares[index] = shares[seen[np.argmin(np.abs(seen - index))]]
        self.parameters_ = _parameters(vector)
        return self

    def predict(
        self,
        batch: ArrayLike,
        new: ArrayLike,
        cached: ArrayLike,
        heads: ArrayLike,
        kv_heads: ArrayLike,
        head_dim: ArrayLike,
        window: ArrayLike = np.inf,
    ) -> NDArray[np.float64]:
        """Seconds of each call; float64, the arguments broadcast.

        Args:
            batch: sequences.
            new, cached: tokens of each that are computed, and that are in the KV cache before.
            heads, kv_heads: on this GPU.
            head_dim: elements of a head.
            window: most tokens that a query looks at.
        """
        arguments = (batch, new, cached, heads, kv_heads, head_dim, window)
        wide = np.broadcast_arrays(*(np.asarray(item, np.float64) for item in arguments))
        return self._times(self.parameters_, _columns(wide)).reshape(wide[0].shape)

    def _times(
        self, parameters: PrefillAttentionParameters, columns: Sequence[NDArray[np.float64]]
    ) -> NDArray[np.float64]:
        batch, new, cached, heads, kv_heads, head_dim, window = columns
        shares = np.array(parameters[-len(HEAD_DIMS) :])
        padded = np.maximum(np.array(HEAD_DIMS, np.float64)[_template(head_dim)], head_dim)
        flop_per_s = self.gpu.peak_flop_per_s(self.attention_bits)
        return _prefill_times(
            parameters,
            batch,
            new,
            cached,
            heads,
            kv_heads,
            head_dim,
            window,
            4.0 * padded / (shares[_template(head_dim)] * flop_per_s),
            self.kv_bits / 8.0,
            float(self.gpu.sm_count),
            self.gpu.bandwidth_bytes_per_s,
        )


def _columns(arguments: Sequence[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    return [item.flatten() for item in arguments]


def _template(head_dim: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index into `HEAD_DIMS` of the kernel that a head dimension is padded to."""
    return np.minimum(np.searchsorted(HEAD_DIMS, head_dim), len(HEAD_DIMS) - 1)


def _parameters(vector: NDArray[np.float64]) -> PrefillAttentionParameters:
    """Parameters of a vector in the units of the search: the tile is sought by its logarithm."""
    values = dict(zip(PrefillAttentionParameters._fields, map(float, vector), strict=True))
    values["tile_tokens"] = 2.0 ** values["tile_tokens"]
    values["units_per_sm"] = float(round(values["units_per_sm"]))
    return PrefillAttentionParameters(**values)


@kernel
def _prefill_times(
    parameters: PrefillAttentionParameters,
    batch: NDArray[np.float64],
    new: NDArray[np.float64],
    cached: NDArray[np.float64],
    heads: NDArray[np.float64],
    kv_heads: NDArray[np.float64],
    head_dim: NDArray[np.float64],
    window: NDArray[np.float64],
    pair_s: NDArray[np.float64],
    kv_element_bytes: float,
    sm_count: float,
    bandwidth: float,
) -> NDArray[np.float64]:
    """Seconds of each call; ``pair_s``: of one (query, key) pair of one head on the whole GPU."""
    p = parameters
    time_s = np.empty(len(batch))
    slots = sm_count * p.units_per_sm
    for i in range(len(batch)):
        units = batch[i] * heads[i] * np.ceil(new[i] / p.tile_tokens)
        longest, kept = new[i] + cached[i], cached[i]
        if longest <= window[i]:
            pairs = new[i] * (cached[i] + new[i] / 2.0 + p.tile_tokens / 2.0)
        else:
            growing = max(0.0, window[i] - cached[i])
            outside = new[i] - growing
            seen = growing * (cached[i] + growing / 2.0) + outside * window[i]
            pairs = seen + new[i] * p.tile_tokens / 2.0 + outside * WINDOW_EDGE
            longest = min(longest, window[i] + p.tile_tokens + WINDOW_EDGE)
            kept = min(cached[i], window[i])
        work_s = batch[i] * heads[i] * pairs * pair_s[i] + units * p.unit_s / slots
        waves = units / slots
        mean_s = work_s * (1.0 + p.tail_share * (np.ceil(waves) / waves - 1.0))
        slowest_s = longest * p.tile_tokens * pair_s[i] * slots + p.unit_s
        longer, shorter = max(mean_s, slowest_s), min(mean_s, slowest_s)
        joined = longer * (1.0 + (shorter / longer) ** p.sharpness) ** (1.0 / p.sharpness)
        passes = p.query_passes * heads[i] * new[i] + p.kv_passes * kv_heads[i] * new[i]
        traffic = 4.0 * passes + 2.0 * kv_element_bytes * kv_heads[i] * kept
        joined += p.token_s * batch[i] * new[i]
        time_s[i] = p.launch_s + joined + batch[i] * head_dim[i] * traffic / bandwidth
    return time_s

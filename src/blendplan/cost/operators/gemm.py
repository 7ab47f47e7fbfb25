"""`GemmModel`: time of one matrix multiplication, from tiles, waves, splits and memory traffic."""

from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from blendplan.cost.calibration.search import mean_absolute_share, minimise, sampled
from blendplan.hardware.gpu import GpuSpec
from blendplan.kernels.kernel import kernel

# Output tiles that GEMM libraries choose from, large ones first because they win more often, and
# ways to split the inner dimension over SMs.
TILES = np.array(
    [(m, n) for m in (256, 128, 64) for n in (256, 128, 64) if m * n <= 128 * 256], np.float64
)
SPLITS = np.array([1, 2, 3, 4, 6, 8, 12, 16], np.float64)
LEAST_SPLIT_K = 128
# The inner dimension is split only where the tiles leave half of the SMs idle.
MOST_TILES_TO_SPLIT = 0.5
MOST_SPLIT_WAVES = 4
# Bits of both operands.
OPERAND_BITS = {"bf16": 16.0, "fp8": 8.0, "fp8_block": 8.0, "fp4": 4.0}
# The published tables cycle through this many copies of the operands.
OPERAND_SETS = 6
# Compute time at which half of the slowdown under sustained load has set in.
WARM_UP_S = 1e-3
FIT_ROWS = 1000


class GemmParameters(NamedTuple):
    """What tells one GPU's GEMMs from another's.

    Attributes:
        launch_s: time of the smallest call.
        flop_share: inner loop rate, as a share of the datasheet's matrix peak.
        sustained_loss: share of that rate lost under sustained load (power and clocks).
        bandwidth_share: memory rate, as a share of the datasheet's bandwidth.
        l2_multiple: rate from L2 into all SMs, as a multiple of the memory bandwidth.
        tile_s: start and end of one output tile.
        tail_share: share of the idle SMs' time in the last wave that is really lost; less than 1
            where work is spread evenly (stream-K, persistent kernels).
        split_s: cost of splitting the inner dimension over SMs.
        tile_sharpness, sharpness: exponents of the norms that join loading and computing within a
            tile, and memory and compute over the whole call; infinity is perfect overlap.
        warm_multiple: memory rate when all operands fit in L2, as a multiple of the bandwidth.
        quantise_passes: extra passes over the input to quantise it, each 16 bits an element.
    """

    launch_s: float
    flop_share: float
    sustained_loss: float
    bandwidth_share: float
    l2_multiple: float
    tile_s: float
    tail_share: float
    split_s: float
    tile_sharpness: float
    sharpness: float
    warm_multiple: float
    quantise_passes: float


BOUNDS: dict[str, tuple[float, float]] = {
    "launch_s": (0.0, 20e-6),
    "flop_share": (0.3, 1.0),
    "sustained_loss": (0.0, 0.4),
    "bandwidth_share": (0.4, 1.0),
    "l2_multiple": (0.5, 8.0),
    "tile_s": (0.0, 8e-6),
    "tail_share": (0.0, 1.0),
    "split_s": (0.0, 10e-6),
    "tile_sharpness": (1.0, 16.0),
    "sharpness": (1.0, 12.0),
    "warm_multiple": (1.0, 8.0),
    "quantise_passes": (0.0, 12.0),
}
# From tiles that overlap loading and computing to ones that do not, with and without a full tail.
STARTS = [
    GemmParameters(
        launch_s=2e-6,
        flop_share=0.8,
        sustained_loss=0.1,
        bandwidth_share=0.8,
        l2_multiple=4.5,
        tile_s=tile_s,
        tail_share=tail,
        split_s=2e-6,
        tile_sharpness=sharpness,
        sharpness=3.0,
        warm_multiple=2.0,
        quantise_passes=2.0,
    )
    for tile_s in (0.5e-6, 3e-6)
    for tail in (0.1, 0.8)
    for sharpness in (2.0, 10.0)
]


class GemmModel:
    """Time of C[m, n] = A[m, k] B[k, n] on one GPU.

    The library is taken to choose the output tile and the split of k that are fastest under

        T = launch + ((waves x tile time)^s + (bytes / memory rate)^s)^(1/s)

    with the tile time from the matrix rate and the L2 rate of one SM.

    Args:
        gpu: whose peaks the shares refer to.
        dtype: ``bf16``, or ``fp8``, ``fp8_block`` or ``fp4`` for both operands, the input being
            quantised in the call.
        parameters: from an earlier fit; else call `fit`.

    Attributes:
        parameters_: fitted parameters.
    """

    def __init__(
        self, gpu: GpuSpec, dtype: str = "bf16", parameters: GemmParameters | None = None
    ) -> None:
        self.gpu, self.dtype = gpu, dtype
        if parameters is not None:
            self.parameters_ = parameters

    def fit(self, m: ArrayLike, n: ArrayLike, k: ArrayLike, time_s: ArrayLike) -> Self:
        """Fit to calls measured with `OPERAND_SETS` copies of the operands in turn."""
        shapes = [np.asarray(size, np.float64) for size in (m, n, k)]
        measured_s = np.asarray(time_s, np.float64)
        chosen = sampled(len(measured_s), FIT_ROWS)
        m_, n_, k_ = (size[chosen] for size in shapes)
        bounds = BOUNDS | ({"quantise_passes": (0.0, 0.0)} if self.dtype == "bf16" else {})
        limits = list(bounds.values())

        def error(vector: NDArray[np.float64]) -> float:
            predicted_s = self._times(GemmParameters(*vector), m_, n_, k_, OPERAND_SETS)
            return mean_absolute_share(predicted_s, measured_s[chosen])

        starts = [np.clip(start, *np.array(limits).T) for start in STARTS]
        self.parameters_ = GemmParameters(*map(float, minimise(error, limits, starts)))
        return self

    def predict(
        self,
        m: ArrayLike,
        n: ArrayLike,
        k: ArrayLike,
        *,
        operand_sets: float = np.inf,
        weight_bits: float | None = None,
    ) -> NDArray[np.float64]:
        """Seconds of each call; float64, the shapes broadcast.

        Args:
            m, n, k: tokens, output features, input features.
            operand_sets: copies of the operands that are used in turn; few and small ones stay in
                the L2 cache. In a model every layer has its own weights: infinitely many.
            weight_bits: bits per weight where weights are expanded to the dtype on the way in.
        """
        m_, n_, k_ = np.broadcast_arrays(*(np.asarray(size, np.float64) for size in (m, n, k)))
        flat = [size.flatten() for size in (m_, n_, k_)]
        predicted_s = self._times(
            self.parameters_, flat[0], flat[1], flat[2], operand_sets, weight_bits
        )
        return predicted_s.reshape(m_.shape)

    def _times(
        self,
        parameters: GemmParameters,
        m: NDArray[np.float64],
        n: NDArray[np.float64],
        k: NDArray[np.float64],
        operand_sets: float,
        weight_bits: float | None = None,
    ) -> NDArray[np.float64]:
        bits = OPERAND_BITS[self.dtype]
        return _gemm_times(
            parameters,
            m,
            n,
            k,
            bits / 8.0,
            (bits if weight_bits is None else weight_bits) / 8.0,
            float(self.gpu.sm_count),
            self.gpu.peak_flop_per_s(bits),
            self.gpu.bandwidth_bytes_per_s,
            self.gpu.l2_bytes / operand_sets,
        )


@kernel
def _gemm_times(
    parameters: GemmParameters,
    m: NDArray[np.float64],
    n: NDArray[np.float64],
    k: NDArray[np.float64],
    input_bytes: float,
    weight_bytes: float,
    sm_count: float,
    flop_per_s: float,
    bandwidth: float,
    warm_bytes: float,
) -> NDArray[np.float64]:
    """Seconds of each call; ``warm_bytes``: calls with fewer bytes find all operands in L2."""
    p = parameters
    time_s = np.empty(len(m))
    for i in range(len(m)):
        operands = input_bytes * m[i] * k[i] + weight_bytes * n[i] * k[i] + 2.0 * m[i] * n[i]
        multiple = p.bandwidth_share
        if operands < warm_bytes:
            multiple = p.warm_multiple
        best_s = np.inf
        for tile in range(len(TILES)):
            tile_m, tile_n = TILES[tile]
            if tile_m > 64.0 and tile_m >= 2.0 * m[i]:
                continue  # a smaller tile holds all tokens too
            tiles = np.ceil(m[i] / tile_m) * np.ceil(n[i] / tile_n)
            for split in SPLITS:
                if split > 1 and (
                    tiles > MOST_TILES_TO_SPLIT * sm_count
                    or tiles * split > MOST_SPLIT_WAVES * sm_count
                    or k[i] < split * LEAST_SPLIT_K
                ):
                    break
                depth = k[i] / split
                math_s = 2.0 * tile_m * tile_n * depth / (p.flop_share * flop_per_s / sm_count)
                load_s = (tile_m * input_bytes + tile_n * weight_bytes) * depth
                load_s /= p.l2_multiple * bandwidth / sm_count
                waves = tiles * split / sm_count
                if waves > 1.0:
                    waves += p.tail_share * (np.ceil(waves) - waves)
                else:
                    waves = 1.0
                if waves * max(math_s, load_s) + p.split_s * (split > 1) >= best_s:
                    continue
                compute_s = waves * (_norm(math_s, load_s, p.tile_sharpness) + p.tile_s)
                compute_s /= 1.0 - p.sustained_loss * compute_s / (compute_s + WARM_UP_S)
                traffic = operands
                if split > 1:
                    traffic += 4.0 * m[i] * n[i] * split
                total_s = _norm(compute_s, traffic / (multiple * bandwidth), p.sharpness)
                if split > 1:
                    total_s += p.split_s
                best_s = min(best_s, total_s)
        quantise_s = p.quantise_passes * 2.0 * m[i] * k[i] / bandwidth
        time_s[i] = p.launch_s + best_s + quantise_s
    return time_s


@kernel
def _norm(a: float, b: float, exponent: float) -> float:
    longer, shorter = max(a, b), min(a, b)
    if longer == 0.0:
        return 0.0
    return longer * (1.0 + (shorter / longer) ** exponent) ** (1.0 / exponent)

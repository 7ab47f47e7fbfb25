"""`decode_s` and `prefill_s`: time of one recurrent layer beside its matrices.

What a layer keeps of a request is a state of constant size, and the latest inputs of its
convolution. A decode reads and writes both. A prompt is scanned in chunks: what is within a chunk
is multiplied out, and the state passes from one chunk to the next.

Shares and times of the gated delta rule were fitted to half of the published kernel times of
aiconfigurator-core 0.12.0 (``systems/data/<gpu>/linear_attention/vllm/0.24.0/gdn_perf.parquet``,
Apache-2.0) for H100, H200 and B200, and lie between theirs. docs/accuracy.md has the errors on the
other half. Nobody published the others: their FLOP at a stated share of the peak.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blendplan.hardware.gpu import GpuSpec
from blendplan.hardware.layers import State

# One decode call for the recurrence and one for the convolution.
DECODE_LAUNCH_S = 8e-6
STATE_BANDWIDTH_SHARE = 0.86
PREFILL_LAUNCH_S = 12e-6
# A chunk of the longest sequence in a step waits for the one before it.
CHUNK_TOKENS = 64.0
CHUNK_S = 3e-6
SCAN_BANDWIDTH_SHARE = 0.6
CONV_BANDWIDTH_SHARE = 0.5
# Convolutions look at four tokens in all models known.
CONV_TOKENS = 4
# Shares of the matrix peak that scans reach which were not measured, and the FLOP that a token
# takes for each element of the state: the chunk of a state-space duality or of linear attention is
# multiplied out, a selective scan is not, and runs on the vector units.
_SCANS = {"mamba1": (9.0, 0.02), "mamba2": (6.0, 0.2), "lightning": (6.0, 0.2)}
_MEASURED = ("gated_delta", "kda")


class Recurrence(NamedTuple):
    """Sizes of a recurrent layer on one GPU.

    Attributes:
        kind: of `State`.
        state_bytes: recurrent state and convolution inputs of a request.
        state_elements: of the recurrent state.
        inputs: values of a token that the convolution and the scan read, or the scan alone.
        has_conv: whether there is a convolution.
    """

    kind: str
    state_bytes: float
    state_elements: float
    inputs: float
    has_conv: bool


def recurrence_of(state: State, tp: int = 1) -> Recurrence:
    """The sizes of a recurrent layer of which ``tp`` GPUs have a part each."""
    held = state.state_elements * state.state_bits + state.conv_elements * state.conv_bits
    inputs = state.conv_elements / (CONV_TOKENS - 1)
    if not state.conv_elements:
        # Queries, keys and values of linear attention, from square states.
        inputs = 3.0 * float(np.sqrt(state.state_elements * state.heads))
    return Recurrence(
        kind=state.kind,
        state_bytes=held / 8 / tp,
        state_elements=state.state_elements / tp,
        inputs=inputs / tp,
        has_conv=state.conv_elements > 0,
    )


def decode_s(gpu: GpuSpec, layer: Recurrence) -> tuple[float, float]:
    """Seconds of a step per decoding sequence, and whatever their number."""
    moved = 2.0 * layer.state_bytes
    return moved / (STATE_BANDWIDTH_SHARE * gpu.bandwidth_bytes_per_s), DECODE_LAUNCH_S


def prefill_s(
    gpu: GpuSpec, layer: Recurrence, sequences: NDArray[np.float64], new: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Seconds of a step that computes ``new`` prompt tokens of each of some sequences; float64."""
    bandwidth = gpu.bandwidth_bytes_per_s
    tokens = sequences * new
    conv_s = np.zeros_like(tokens)
    if layer.has_conv:
        conv_s = 4.0 * layer.inputs * tokens / (CONV_BANDWIDTH_SHARE * bandwidth)
    if not layer.state_elements:
        return PREFILL_LAUNCH_S + conv_s
    moved = 4.0 * layer.inputs * tokens + 2.0 * layer.state_bytes * sequences
    scan_s = moved / (SCAN_BANDWIDTH_SHARE * bandwidth)
    if layer.kind in _SCANS:
        flop, share = _SCANS[layer.kind]
        work_s = flop * layer.state_elements * tokens / (share * gpu.flop_per_s)
    else:
        work_s = np.ceil(new / CHUNK_TOKENS) * CHUNK_S
    return PREFILL_LAUNCH_S + conv_s + np.maximum(scan_s, work_s)


def scan_flop(state: State, tp: int = 1) -> float:
    """FLOP of a token in one layer's recurrence on one GPU: what it does with each element."""
    flop, _ = _SCANS.get(state.kind, (6.0, 0.0))
    return flop * state.state_elements / tp


def measured(state: State) -> bool:
    """Whether somebody published times of a recurrence of this kind."""
    return state.kind in _MEASURED or not state.state_elements

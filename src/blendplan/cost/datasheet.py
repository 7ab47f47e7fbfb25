"""`DatasheetCost`: the paper's formulas over datasheet peaks."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from blendplan.cost.linear_times import parts_of
from blendplan.cost.looks import INDEXER_BITS, looks_of, reach_of
from blendplan.cost.operators.recurrence import recurrence_of, scan_flop
from blendplan.cost.reach import OWN_TOKEN, Reach, reads
from blendplan.cost.step import StepTable
from blendplan.hardware.gpu import GpuSpec
from blendplan.hardware.linear_shapes import LinearShape
from blendplan.hardware.model import ModelSpec, linear_shapes


@dataclass(frozen=True)
class DatasheetCost:
    """Every operator runs at the datasheet peak of what limits it.

    Attributes:
        model, gpu, tp: what is priced; ``tp`` GPUs share the work.
        active_parameters: P of the paper, weights used per token.
    """

    model: ModelSpec
    gpu: GpuSpec
    tp: int
    active_parameters: float

    @property
    def name(self) -> str:
        """``datasheet``."""
        return "datasheet"

    @property
    def note(self) -> str:
        """Empty: who asks for datasheet prices knows."""
        return ""

    def parameters(self) -> dict[str, Any]:
        """Peaks and model sizes, as JSON values."""
        return {
            "flop_per_s": self.flop_per_s,
            "bandwidth_bytes_per_s": self.gpu.bandwidth_bytes_per_s,
            "link_bytes_per_s": self.gpu.link_bytes_per_s,
            "active_parameters": self.active_parameters,
            "kv_bytes_per_token": self.model.kv_bytes_per_token(self.tp),
            **({"state_bytes": self._state_bytes} if self.model.states else {}),
            "tp": self.tp,
        }

    @property
    def flop_per_s(self) -> float:
        """Matrix peak of one GPU for the model's weights."""
        return self.gpu.peak_flop_per_s(self.model.weight_bits)

    def demand(
        self, prompt_tokens: ArrayLike, output_tokens: ArrayLike
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Comp(r) = 2 (p + d) P / peak and Mem(r) = (p d + d^2 / 2) KV bytes / bandwidth.

        Section 4.1 of the paper, each over tp GPUs; in layers that look less far back, what they
        look at takes the place of the context, and states add the FLOP of their scan, and their
        bytes twice for each output token. float64 [n] each, in seconds.
        """
        p = np.asarray(prompt_tokens, np.float64)
        d = np.asarray(output_tokens, np.float64)
        compute_s = 2.0 * (p + d) * self.active_parameters / (self.flop_per_s * self.tp)
        reach, _, read_bytes = self._attention
        memory_s = reads(reach, p, d) * read_bytes / self.gpu.bandwidth_bytes_per_s
        if self.model.states:
            compute_s = compute_s + (p + d) * self._scan_flop / self.gpu.flop_per_s
            memory_s = memory_s + d * 2.0 * self._state_bytes / self.gpu.bandwidth_bytes_per_s
        return compute_s, memory_s

    @cached_property
    def _attention(self) -> tuple[Reach, float, float]:
        """How far back layers look; over all of them, FLOP at bf16 of a pair and bytes of a read.

        An indexer's products count by the peak that they run at.
        """
        looks = looks_of(self.model, self.tp)
        fp8 = self.gpu.flop_per_s / self.gpu.peak_flop_per_s(INDEXER_BITS)
        slower = [fp8 if look.kind == "indexer" else 1.0 for look in looks]
        return reach_of(
            looks,
            [look.pair_flop * look.layers * by for look, by in zip(looks, slower, strict=True)],
            [look.read_bytes * look.layers for look in looks],
        )

    @cached_property
    def _state_bytes(self) -> float:
        """Bytes of a request's states on one GPU."""
        return sum(
            recurrence_of(state, self.tp).state_bytes * layers
            for state, layers in self.model.states.items()
        )

    @cached_property
    def _scan_flop(self) -> float:
        """FLOP of a token in all recurrences on one GPU, beside their matrices."""
        return sum(
            scan_flop(state, self.tp) * layers for state, layers in self.model.states.items()
        )

    def step_table(
        self, max_num_batched_tokens: int, max_num_seqs: int, overlap: float = 1.0
    ) -> StepTable:
        """Rooflines of linear layers and output head, attention at peak, no fixed overheads."""
        tokens = np.arange(max_num_batched_tokens + 1, dtype=np.float64)
        sequences = np.arange(max_num_seqs + 1, dtype=np.float64)
        bandwidth = self.gpu.bandwidth_bytes_per_s
        linear_s = self._all_reduce_s(tokens)
        for shape in linear_shapes(self.model, self.tp):
            flop = 2.0 * tokens * shape.active_parameters
            weights = shape.weight_bytes * expert_share(shape, tokens)
            peak = self.gpu.peak_flop_per_s(shape.weight_bits)
            linear_s += np.maximum(flop / peak, weights / bandwidth)
        head = self.model.head_parameters / self.tp
        head_s = np.maximum(2.0 * sequences * head / self.gpu.flop_per_s, 2.0 * head / bandwidth)
        linear_s[0] = head_s[0] = 0.0
        reach, pair_flop, read_bytes = self._attention
        state_s = 2.0 * self._state_bytes / bandwidth
        read_s = read_bytes / bandwidth
        if reach is OWN_TOKEN:
            # Nothing is read but states, which count as a token each.
            read_s, state_s = state_s, 0.0
        prefill = [pair_flop / self.gpu.flop_per_s, self._scan_flop / self.gpu.flop_per_s, 0.0]
        return StepTable(
            linear_s=linear_s,
            head_s=head_s,
            prefill_attention=np.array(prefill),
            decode_attention=np.array([read_s, 0.0, 0.0]),
            overlap=float(overlap),
            step_s=0.0,
            state_s=state_s,
            reach=reach,
        )

    def _all_reduce_s(self, tokens: NDArray[np.float64]) -> NDArray[np.float64]:
        """A ring all-reduce of the hidden states for each part of each layer."""
        if self.tp == 1:
            return np.zeros_like(tokens)
        message = tokens * self.model.hidden * 2.0
        sent = 2.0 * (self.tp - 1) / self.tp * message
        parts = sum(parts_of(layer) * count for layer, count in self.model.layer_counts.items())
        return float(parts) * sent / self.gpu.link_bytes_per_s


def datasheet_cost(
    model: ModelSpec, gpu: GpuSpec, tp: int = 1, active_parameters: float | None = None
) -> DatasheetCost:
    """The datasheet cost of a model on ``tp`` GPUs.

    Args:
        model, gpu, tp: what is priced.
        active_parameters: P of the paper's formulas; by default the model's true count (the paper
            rounds Llama-3.1-8B to 8.0e9).
    """
    purpose = "add it to the profile, or name a base GPU there"
    gpu.require("flop_per_s", "bandwidth_bytes_per_s", purpose=purpose)
    linear_shapes(model, tp)  # refuses a degree that does not divide the model
    if active_parameters is None:
        # Norms and biases multiply no tokens.
        used = sum(shape.active_parameters for shape in linear_shapes(model))
        active_parameters = used + model.head_parameters + model.embedding_parameters
    return DatasheetCost(model, gpu, tp, float(active_parameters))


def expert_share(shape: LinearShape, tokens: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of a layer's experts that that many tokens hit, spread evenly and independently."""
    if shape.experts == shape.experts_per_token:
        return np.ones_like(tokens)
    missed = 1.0 - shape.experts_per_token / shape.experts
    return 1.0 - missed**tokens

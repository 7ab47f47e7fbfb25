"""`CalibratedCost`: steps priced by operator models that were fitted to measured kernels."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from blendplan.cost.attention_prices import DECODE_SEQUENCES, AttentionPrices
from blendplan.cost.launches import launches_of
from blendplan.cost.linear_times import all_reduce_s, elementwise_s, gemm_s
from blendplan.cost.operators.of_gpu import Operators, operators
from blendplan.cost.operators.recurrence import measured
from blendplan.cost.reach import pairs_up_to, reads
from blendplan.cost.step import StepTable
from blendplan.hardware.gpu import GpuSpec
from blendplan.hardware.model import ModelSpec, linear_shapes

# What a step consists of; the last only where several GPUs share the model.
WORDS = {
    "gemm": "GEMM",
    "decode_attention": "decode attention",
    "prefill_attention": "prefill attention",
    "all_reduce": "all-reduce",
}
BEST_PRICE_TOKENS = tuple(range(256, 4097, 256))


def has_kernels(gpu: GpuSpec) -> bool:
    """Whether any operator of a GPU was measured."""
    return any(map(gpu.fitted.get, WORDS))


@dataclass(frozen=True)
class CalibratedCost:
    """Every operator takes the time that its fitted model predicts.

    Attributes:
        model, gpu, tp: what is priced; ``tp`` GPUs share the work.
    """

    model: ModelSpec
    gpu: GpuSpec
    tp: int

    @property
    def name(self) -> str:
        """``calibrated``."""
        return "calibrated"

    @property
    def note(self) -> str:
        """Says so where operators take stated efficiencies because nobody measured them.

        Where the profile has a step log of another model, says that operators set the times.
        """
        needed = [name for name in WORDS if name != "all_reduce" or self.tp > 1]
        missing = [name for name in needed if name not in self._operators.measured]
        if not missing:
            return self._note_of_steps or self._note_of_states
        what = ""
        if len(missing) < len(needed):
            words = ", ".join(WORDS[name] for name in missing)
            what = f" for {words} of this model's data types"
        return (
            f"{self.gpu.name} is not calibrated{what}: stated efficiencies set the times; "
            "'blendplan calibrate' fits them to measurements"
        )

    @property
    def _note_of_steps(self) -> str:
        """Says so where a step log was measured, but of another model."""
        steps = self.gpu.fitted.get("steps")
        if not isinstance(steps, Mapping):
            return ""
        return (
            f"the steps in GPU profile {self.gpu.name} are of {steps.get('model')} on "
            f"{steps.get('tp', 1)} GPUs: the times of {self.model.name} on {self.tp} follow from "
            "its kernels"
        )

    @property
    def _note_of_states(self) -> str:
        """Says so where nobody measured the recurrence of a kind of layer."""
        kinds = sorted({state.kind for state in self.model.states if not measured(state)})
        if not kinds:
            return ""
        return f"nobody measured the scans of {', '.join(kinds)} layers: stated efficiencies"

    @cached_property
    def _operators(self) -> Operators:
        return operators(self.gpu, weight_bits=self.model.weight_bits, kv_bits=self.model.kv_bits)

    def parameters(self) -> dict[str, Any]:
        """Which measurements the prices rest on, and the parameters, as JSON values."""
        used = self._operators
        return {
            "measured": list(used.measured),
            "kernels": dict(used.kernels),
            "source": str(self.gpu.fitted.get("source", "not calibrated: stated efficiencies")),
            "gemm": used.gemm.parameters_._asdict(),
            "decode_attention": used.decode.parameters_._asdict(),
            "prefill_attention": used.prefill.parameters_._asdict(),
            "launches": launches_of(self.gpu)._asdict(),
            "tp": self.tp,
        }

    def demand(
        self, prompt_tokens: ArrayLike, output_tokens: ArrayLike
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Seconds of compute and of decode attention in well-filled steps; float64 [n] each.

        Tokens count at the best price per token, attention at its price per pair and per token
        read; what is paid per step is left out.
        """
        p = np.asarray(prompt_tokens, np.float64)
        d = np.asarray(output_tokens, np.float64)
        token_s, head_s = self._best_prices
        attention = self._attention(max(DECODE_SEQUENCES))
        pair_s, new_s, _ = attention.prefill
        read_s, sequence_s, _ = attention.decode
        pairs = pairs_up_to(attention.reach, p)
        compute_s = (p + d) * token_s + d * head_s + pairs * pair_s + p * new_s
        memory_s = reads(attention.reach, p, d) * read_s + d * (sequence_s + attention.state_s)
        return compute_s, memory_s

    @cached_property
    def _best_prices(self) -> tuple[float, float]:
        """Seconds per token and per sampling sequence in steps of the best sizes."""
        tokens = np.array(BEST_PRICE_TOKENS, np.float64)
        token_s = float((self._linear_s(tokens) / tokens).min())
        head_s = float((self._head_s(tokens) / tokens).min())
        return token_s, head_s

    def step_table(
        self, max_num_batched_tokens: int, max_num_seqs: int, overlap: float = 1.0
    ) -> StepTable:
        """Prices of all token counts from the GEMM model; attention made linear; launches."""
        tokens = np.arange(max_num_batched_tokens + 1, dtype=np.float64)
        sequences = np.arange(max_num_seqs + 1, dtype=np.float64)
        linear_s, head_s = np.zeros(len(tokens)), np.zeros(len(sequences))
        linear_s[1:] = self._linear_s(tokens[1:])
        head_s[1:] = self._head_s(sequences[1:])
        attention = self._attention(max_num_seqs)
        launches = launches_of(self.gpu)
        prompts_s = launches.layer_s * len(self.model.layers)
        return StepTable(
            linear_s=linear_s,
            head_s=head_s,
            prefill_attention=attention.prefill + np.array([0.0, 0.0, prompts_s]),
            decode_attention=attention.decode,
            overlap=float(overlap),
            step_s=launches.step_s,
            state_s=attention.state_s,
            reach=attention.reach,
        )

    def _linear_s(self, tokens: NDArray[np.float64]) -> NDArray[np.float64]:
        """Linear layers, what lies between them, and communication, of steps of some tokens."""
        model, used = self.model, self._operators
        total_s = elementwise_s(model, self.gpu, self.tp, tokens)
        total_s += all_reduce_s(model, used, self.tp, tokens)
        for shape in linear_shapes(model, self.tp):
            total_s += shape.layers * gemm_s(shape, used, tokens)
        return total_s

    def _head_s(self, sequences: NDArray[np.float64]) -> NDArray[np.float64]:
        """The output head of the sequences that sample."""
        vocab = -(-self.model.vocab // self.tp)
        return self._operators.head.predict(sequences, vocab, self.model.hidden)

    def _attention(self, max_num_seqs: int) -> AttentionPrices:
        return AttentionPrices(self.model, self.gpu, self.tp, self._operators, max_num_seqs)


def calibrated_cost(model: ModelSpec, gpu: GpuSpec, tp: int = 1) -> CalibratedCost:
    """The calibrated cost of a model on ``tp`` GPUs.

    A GPU that was not measured takes stated efficiencies; see ``parameters()["measured"]``.

    Raises:
        BlendplanError: a tp that does not divide the model, or bad parameters in a profile.
    """
    linear_shapes(model, tp)  # refuses a degree that does not divide the model
    cost = CalibratedCost(model, gpu, tp)
    cost.parameters()  # refuses bad parameters
    return cost

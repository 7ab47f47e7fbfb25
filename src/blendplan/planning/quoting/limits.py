"""`time_shares`: where the time of a run goes, and what holds it back."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blendplan.cost.machine import Machine
from blendplan.planning.prepare import Prepared
from blendplan.simulator.simulate import SimulatedRun

# A KV cache, or the list of running requests, that is so full on average is what holds a run back.
_FULL = 0.8


@dataclass(frozen=True)
class TimeShares:
    """Parts of the time that a run's steps would take one after the other.

    Attributes:
        compute: arithmetic, at the best price of a token.
        bandwidth: reading the KV cache.
        small_steps: what steps cost more because they compute few tokens, for which all weights
            are read all the same, and the overhead of steps.
        kv_cache, running: mean share of the KV cache, and of ``max_num_seqs``, in use over time.
        prompts: share of the time that prompts take, the rest being that of outputs.
    """

    compute: float
    bandwidth: float
    small_steps: float
    kv_cache: float
    running: float
    prompts: float

    @property
    def limit(self) -> str:
        """What holds the run back, in a few words.

        Small steps are for want of requests to run, for which there is a reason of its own.
        """
        largest = max(self.compute, self.bandwidth, self.small_steps)
        if largest == self.compute:
            return "compute"
        if largest == self.bandwidth:
            return "bandwidth"
        if self.running >= _FULL:
            return "max-num-seqs"
        return "KV capacity" if self.kv_cache >= _FULL else "few requests"


def time_shares(prepared: Prepared, target: Machine, run: SimulatedRun) -> TimeShares:
    """Divide the time of a run.

    Args:
        prepared: the requests.
        target: the machine of each engine.
        run: of one engine, or of several side by side.
    """
    table = target.table
    pair_s, token_s, _ = table.prefill_attention
    attention_s = pair_s * prepared.prefill.pairs + token_s * run.prefill_tokens
    decodes = max(0, run.output_tokens - len(prepared.sequences))
    tokens = run.prefill_tokens + decodes
    # What linear layers cost at the best price, and what they cost; the head is an output's.
    best_s = _best_price(table.linear_s) * tokens
    head_s = _best_price(table.head_s) * run.output_tokens
    linear_s = max(0.0, run.compute_s - attention_s - head_s)
    small_s = max(0.0, linear_s - best_s) + table.step_s * _steps(run)
    compute_s = min(linear_s, best_s) + attention_s + head_s
    total_s = compute_s + run.memory_s + small_s
    prompts_s = linear_s * run.prefill_tokens / max(1, tokens) + attention_s
    whole_s = run.compute_s + run.memory_s
    return TimeShares(
        compute=float(compute_s / total_s),
        bandwidth=float(run.memory_s / total_s),
        small_steps=float(small_s / total_s),
        kv_cache=_mean(run, "kv_tokens") / target.limits.kv_tokens,
        running=_mean(run, "running") / target.limits.max_num_seqs,
        prompts=float(min(1.0, prompts_s / whole_s)),
    )


def _best_price(price_s: NDArray[np.float64]) -> float:
    return float((price_s[1:] / np.arange(1, len(price_s))).min())


def _steps(run: SimulatedRun) -> int:
    """Steps of all engines."""
    return int(run.mixed_steps.sum() + run.decode_steps.sum())


def _mean(run: SimulatedRun, name: str) -> float:
    """Mean over the time of a run."""
    ends = run.series["end_s"]
    if not len(ends) or ends[-1] <= 0:
        return 0.0
    return float(np.average(run.series[name], weights=np.diff(ends, prepend=0.0)))

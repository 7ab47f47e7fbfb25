"""What one step of the simulated engine did, from its arrays before and after."""

import numpy as np
from numpy.typing import NDArray

from blendplan.engines.protocol import StepWork
from blendplan.simulator import steps as loop
from blendplan.simulator.kv_cache import FREE, KvCache

_NONE = np.empty(0, dtype=np.int64)


class Snapshot:
    """What a step changes, copied out of the arrays that it writes to."""

    def __init__(self, engine: loop.Engine) -> None:
        counts = engine.counts
        self.running: NDArray[np.int64] = engine.running[: counts[loop.RUNNING]].copy()
        self.waiting_again = engine.waiting_again[: counts[loop.WAITING_AGAIN]].copy()
        self.admitted = int(counts[loop.ADMITTED])
        self.computed: NDArray[np.int32] = engine.computed[self.running]
        behind = known_tokens(engine, self.running) - self.computed
        self.decoding = (behind == 1) & (engine.generated[self.running] > 0)
        self.steps = int(counts[loop.STEPS])
        self.prefill_tokens = int(counts[loop.PREFILL])
        self.clock_s = float(engine.seconds[loop.CLOCK])


class Difference:
    """What happened between two snapshots of an engine, at most a step apart.

    Attributes:
        admitted, again: requests admitted for the first time, and again; int64.
        lost: requests that were preempted; int64.
        finished: requests that generated their last token; int64.
        steps: 0 or 1.
    """

    def __init__(self, engine: loop.Engine, before: Snapshot, after: Snapshot) -> None:
        self._engine = engine
        self._before, self._after = before, after
        self.admitted = engine.admission[before.admitted : after.admitted]
        self.again, self.lost = _NONE, _NONE
        self._kept = np.ones(len(before.running), dtype=bool)
        if len(before.waiting_again) or len(after.waiting_again):
            self.again = np.setdiff1d(before.waiting_again, after.waiting_again)
            self.lost = np.setdiff1d(after.waiting_again, before.waiting_again)
            self._kept = ~np.isin(before.running, self.lost)
        present = np.concatenate([before.running[self._kept], self.admitted, self.again])
        done = engine.generated[present] == engine.output_tokens[present]
        self.finished: NDArray[np.int64] = present[done]
        self.steps = after.steps - before.steps

    def work(self, cache: KvCache) -> StepWork:
        """What the step computed, from the tokens in the cache before and after it."""
        engine, before, kept = self._engine, self._before, self._kept
        served = engine.computed[before.running[kept]] > before.computed[kept]
        decoded = served & before.decoding[kept]
        filling = served & ~decoded
        rows = np.concatenate([before.running[kept][filling], self.admitted, self.again])
        starts = np.concatenate(
            [
                before.computed[kept][filling],
                engine.cached_tokens[self.admitted],
                engine.computed[self.again],
            ]
        ).astype(np.float64)
        new = engine.computed[rows] - starts
        prefill_tokens = self._after.prefill_tokens - before.prefill_tokens
        if again := len(self.again):
            # What they hit in the cache is not recorded; what they computed together is.
            new[-again:] = (prefill_tokens - new.sum()) / again
            starts[-again:] -= new[-again:]
        used = cache.blocks - int(cache.counts[FREE])
        return StepWork(
            prefill_tokens=prefill_tokens,
            prefill_sequences=len(rows),
            prefill_pairs=float((new * starts + new * (new + 1) / 2).sum()),
            decode_tokens=int(decoded.sum()),
            kv_tokens_read=int((before.computed[kept] + 1)[decoded].sum()),
            time_s=self._after.clock_s - before.clock_s,
            kv_tokens_used=used * cache.block_size,
        )


def known_tokens(engine: loop.Engine, rows: NDArray[np.int64]) -> NDArray[np.int32]:
    """Prompt and generated tokens of some requests; int32."""
    known: NDArray[np.int32] = engine.prompt_tokens[rows] + engine.generated[rows]
    return known

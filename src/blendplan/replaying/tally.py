"""`Tally`: how far a run is, and how it went against the plan."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Tally:
    """Counts of one session of a run.

    Attributes:
        requests: requests in the plan.
        predicted: what the plan predicts of them; the ``predicted`` object of its metadata.
        already_done: requests that had a result when the session began.
        finished, failed: requests that it gave an answer, and an error line.
        prompt_tokens, cached_tokens, output_tokens: totals over what it finished; a prompt counts
            once for each answer, as in plans.
        steps, preemptions, restarts: what the engine did.
        replicas: engines that are up, where there may be several; 0 for just one.
        elapsed_s: seconds since the engine took the first request; simulated ones for the
            simulated engine.
    """

    requests: int
    predicted: dict[str, Any] = field(default_factory=dict)
    already_done: int = 0
    finished: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    steps: int = 0
    preemptions: int = 0
    restarts: int = 0
    replicas: int = 0
    elapsed_s: float = 0.0

    def add(self, answers: int, prompt_tokens: int, cached_tokens: int, output_tokens: int) -> None:
        """Count one finished request, of so many sequences with a common prompt."""
        self.finished += 1
        self.prompt_tokens += answers * prompt_tokens
        self.cached_tokens += cached_tokens
        self.output_tokens += output_tokens

    @property
    def left(self) -> int:
        """Requests that have neither an answer nor an error line."""
        return self.requests - self.already_done - self.finished - self.failed

    @property
    def throughput_tokens_per_s(self) -> float:
        """Prompt plus output tokens per second (paper 6.3)."""
        tokens = self.prompt_tokens + self.output_tokens
        return tokens / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def cached_share(self) -> float:
        """Share of the prompt tokens that came from the prefix cache."""
        return self.cached_tokens / max(1, self.prompt_tokens)

    @property
    def time_left_s(self) -> float | None:
        """Seconds to the end at the pace so far.

        Measured in tokens, by the plan's prediction of what is left; None before the first request
        has finished, and where nothing was planned.
        """
        done = self.prompt_tokens + self.output_tokens
        predicted = self.predicted.get("prompt_tokens", 0) + self.predicted.get("output_tokens", 0)
        session = predicted * (1 - self.already_done / max(1, self.requests))
        if not done or not predicted:
            return None
        return self.elapsed_s * max(0.0, session - done) / done if self.left else 0.0

    def line(self) -> str:
        """Where the run stands, as one short line."""
        parts = [f"{self.replicas} engines"] if self.replicas else []
        parts += [
            f"{self.throughput_tokens_per_s:,.0f} tokens/s",
            f"{self.cached_share:.0%} cached",
            f"{self.preemptions} preempted",
        ]
        if self.failed:
            parts.append(f"{self.failed} failed")
        if self.time_left_s is not None:
            planned_s = self.predicted.get("makespan_s")
            against = f" (plan {planned_s:,.0f} s in all)" if planned_s else ""
            parts.append(f"{self.time_left_s:,.0f} s left{against}")
        return ", ".join(parts)

"""What the replay loop and an engine adapter say to each other.

Everything here crosses the boundary of a process, so it is plain data.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from blendplan.hardware.engine_limits import EngineLimits
from blendplan.simulator.cuda_graphs import GraphSizes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "tekken.json",
)


class EngineDiedError(Exception):
    """The engine is gone, with everything that ran on it; a new one may be started."""


@dataclass(frozen=True)
class EngineRequest:
    """One request as an engine gets it; exactly one of the three kinds of prompt is set.

    Attributes:
        row: row of the plan, of its first answer; names the request in everything that the engine
            reports.
        prompt_token_ids, text, messages: the prompt.
        tools: tool definitions for the chat template, next to ``messages``.
        parameters: sampling parameters by their OpenAI or vLLM names.
        output_tokens: known output length, generated whatever the model says; -1 if unknown.
        answers: sequences that it runs, ``n`` of them or more. They have the rows from ``row`` on,
            where the engine tells of each by itself.
    """

    row: int
    prompt_token_ids: list[int] | None = None
    text: str | None = None
    messages: list[dict[str, Any]] | None = None
    tools: list[Any] | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    output_tokens: int = -1
    answers: int = 1


@dataclass(frozen=True)
class TokenLogprob:
    """Log probability of one generated token, and of the most likely ones at its place."""

    token_id: int
    text: str | None
    logprob: float
    top: list[tuple[int, str | None, float]]


@dataclass(frozen=True)
class Choice:
    """One generated answer; ``text`` is None when the engine has no tokenizer.

    Its ``token_ids`` are then all there is; the simulated engine has neither.
    """

    token_ids: list[int]
    text: str | None
    finish_reason: str
    logprobs: list[TokenLogprob] | None = None


@dataclass(frozen=True)
class Finished:
    """A request that the engine completed.

    Attributes:
        row: row of the request.
        choices: its answers, one unless ``n`` asked for more.
        prompt_tokens: prompt length, counted once.
        cached_tokens: how much of it the prefix cache held, summed over the answers.
        completion_tokens: generated tokens of all answers together.
        first_token_s: seconds from submission to the first token, None if the engine hides it.
        preemptions: how often it lost its KV cache, None if the engine hides it.
    """

    row: int
    choices: list[Choice]
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    first_token_s: float | None = None
    preemptions: int | None = None


@dataclass(frozen=True)
class Refused:
    """A request that the engine did not complete, and whether another attempt makes sense."""

    row: int
    code: str
    message: str
    retry: bool


@dataclass(frozen=True)
class StepWork:
    """What one engine step computed: the inputs of step time, and the time it took.

    Attributes:
        prefill_tokens, prefill_sequences: prompt tokens computed, and for how many requests.
        prefill_pairs: (query, key) pairs of their causal attention: for n new tokens after c
            cached ones, n c + n (n + 1) / 2.
        decode_tokens: requests that decoded one token each.
        kv_tokens_read: KV-cache tokens that those attended to.
        time_s: seconds that the engine took.
        kv_tokens_used: KV-cache tokens held after the step.
    """

    prefill_tokens: int
    prefill_sequences: int
    prefill_pairs: float
    decode_tokens: int
    kv_tokens_read: int
    time_s: float
    kv_tokens_used: int


@dataclass
class StepReport:
    """What happened since the last report.

    Attributes:
        finished, refused: requests that left the engine.
        ended: rows whose sequence is complete, in the order in which they gave their KV cache back;
            for engines that tell of each answer by itself, before the request finishes.
        preempted, resumed: rows that lost their KV cache, and rows that were given it again.
        free_kv_tokens: KV-cache tokens that new requests could get.
        running, waiting: requests in the engine that hold KV cache and that do not.
        backlog_tokens: prompt tokens of admitted requests that are still to be computed.
        steps: engine steps that this report is about; 0 where the engine does not say.
        work: what they computed, when a log was asked for.
        clock_s: seconds on the engine's own clock; None where it lives in real time.
    """

    finished: list[Finished] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    preempted: list[int] = field(default_factory=list)
    resumed: list[int] = field(default_factory=list)
    free_kv_tokens: int = 0
    running: int = 0
    waiting: int = 0
    backlog_tokens: int = 0
    steps: int = 1
    work: list[StepWork] = field(default_factory=list)
    clock_s: float | None = None


@dataclass(frozen=True)
class Capacity:
    """Limits of a started engine, as it reports them.

    Attributes:
        limits: size of the KV cache, and limits of a step.
        context_tokens: most prompt plus output tokens of one request.
        graph_sizes: CUDA-graph batch sizes in use, empty when the engine captures none.
        version: name and version of the engine; the fingerprint in its results.
    """

    limits: EngineLimits
    context_tokens: int
    graph_sizes: list[int]
    version: str


@dataclass(frozen=True)
class Launch:
    """How to start an engine.

    Attributes:
        model: name or directory of the model.
        limits: those that the plan was made for, None for the engine's own. The size of the KV
            cache is the engine's to find out; its `Capacity` tells.
        tp: tensor-parallel degree.
        kv_dtype: element type of the KV cache, ``auto`` for the model's.
        graphs: CUDA graphs to capture, by engine; an engine that is not named chooses itself.
        arguments: further engine arguments by the engine's own names; they win over the others.
        pdmux: share the GPU in space between prefill and decode.
        log_steps: report the work of each step.
        log: file for what the engine prints; None for a temporary one.
    """

    model: str
    limits: EngineLimits | None = None
    tp: int = 1
    kv_dtype: str = "auto"
    graphs: Mapping[str, GraphSizes] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    pdmux: bool = False
    log_steps: bool = False
    log: Path | None = None

    def lacks_tokenizer(self) -> bool:
        """Whether the model is a directory without a tokenizer: token ids in, token ids out."""
        folder = Path(self.model)
        return folder.is_dir() and not any((folder / name).exists() for name in _TOKENIZER_FILES)


class Engine(Protocol):
    """A started engine. Adapters have nothing else in common."""

    capacity: Capacity

    def step(
        self, requests: Sequence[EngineRequest], prefill_tokens: int | None = None
    ) -> StepReport:
        """Submit ``requests`` in order, let the engine work for a step, and report.

        Args:
            requests: to be admitted after those that wait already.
            prefill_tokens: prompt tokens that the step should compute at most, where the engine
                lets an adapter say so; no limit but the engine's own without it.

        Raises:
            EngineDiedError: the engine is gone.
        """

    def close(self) -> None:
        """Stop the engine and free what it holds."""


class Admission(Protocol):
    """Whom an engine asks inside its scheduler which request goes next."""

    def begin_step(self, used_kv_tokens: float) -> int:
        """Start a step; returns how many prompt tokens it may compute.

        These are beside a token of each running request; one in the middle of its prompt leaves its
        token to prefill.

        Args:
            used_kv_tokens: KV tokens that running requests hold.
        """

    def next_request(self) -> EngineRequest | None:
        """The request to try next in this step, None for none; the engine need not take it."""

    def admitted(self, row: int) -> None:
        """The request of `next_request` was given room, or is refused for good.

        Of a request with several answers, the engine goes on with the rows after it, and names each
        as it is given room, before it asks for another request.
        """

    def preempted(self, row: int) -> None:
        """A running request lost its KV cache and waits in the engine."""

    def resumed(self, row: int) -> None:
        """A preempted request was given room again."""


@runtime_checkable
class TellsGenerated(Protocol):
    """An engine that tells how far its requests are."""

    def generated_tokens(self) -> "NDArray[np.int32]":
        """Output tokens of each row of the plan so far; int32 [n]."""


@runtime_checkable
class AskingEngine(Protocol):
    """An engine in this process that asks for one request after the other."""

    capacity: Capacity

    def step_asking(self, admission: Admission) -> StepReport:
        """Work for a step and report; what `admission` was told is not in the report.

        Raises:
            EngineDiedError: the engine is gone.
        """

    def close(self) -> None:
        """Stop the engine and free what it holds."""

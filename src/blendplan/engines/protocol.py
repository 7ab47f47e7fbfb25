"""What the replay loop and an engine say to each other.

The policy lives with the engine: it is asked inside the engine's own scheduler. The replay loop
sends the requests that the policy is about to want, and writes down what comes back. Everything
here crosses the boundary of a process, so it is plain data.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from blendplan.hardware.engine_limits import EngineLimits

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from blendplan.simulator.cuda_graphs import GraphSizes

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
    """One request as an engine's own server gets it.

    Attributes:
        row: row of the plan, of its first answer; names the request in everything that the engine
            reports.
        url: path on the engine's server, such as ``/v1/chat/completions``.
        body: what is posted there, JSON.
        answers: sequences that it runs, ``n`` of them or more. They have the rows from ``row`` on.
        output_tokens: known output length of each, which the body asks for; -1 if unknown.
        open_prompt_tokens: planned prompt length of a plain line that only the context limits,
            where a server would stop a completion after a few tokens; -1 for all others.
    """

    row: int
    url: str
    body: bytes
    answers: int = 1
    output_tokens: int = -1
    open_prompt_tokens: int = -1


@dataclass(frozen=True)
class Answer:
    """What the engine's server answered to one request.

    Attributes:
        row: row of the request.
        status: HTTP status; 200 for an answer, from 500 on another attempt makes sense.
        body: as the server wrote it, JSON in one line.
    """

    row: int
    status: int
    body: bytes


@dataclass(frozen=True)
class Ended:
    """A sequence that left the engine's scheduler; its request may have others that run.

    Attributes:
        row: of the sequence.
        cached_tokens: prompt tokens that the prefix cache held when it first came in.
        preemptions: how often it lost its KV cache.
        first_token_s: seconds from its arrival to its first token, None if the engine hides it.
    """

    row: int
    cached_tokens: int
    preemptions: int
    first_token_s: float | None = None


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
        running, waiting: sequences that hold KV cache after it, and that the engine has and do not.
    """

    prefill_tokens: int
    prefill_sequences: int
    prefill_pairs: float
    decode_tokens: int
    kv_tokens_read: int
    time_s: float
    kv_tokens_used: int
    running: int
    waiting: int


@dataclass
class Report:
    """What happened since the last report.

    Attributes:
        answers: of requests that left the engine.
        wanted: rows, of first answers, of requests to send now: the policy will ask for them soon.
            None of them was wanted before a move of it that the engine has been told of.
        began: rows that were given KV cache for the first time.
        ended: sequences that left the scheduler.
        preemptions: how many sequences lost their KV cache.
        steps: engine steps that computed anything.
        work: what they computed, when a log was asked for.
        idle: whether nothing runs and nothing that was sent will run; None where it is not known.
        clock_s: seconds on the engine's own clock; None where it lives in real time.
        remarks: lines for the user.
        learned: what was learned of output lengths so far, see `Reviser`; None for no news.
        moves: how many moves a scheduler in another process had heard of when it wanted these.
    """

    answers: list[Answer] = field(default_factory=list)
    wanted: list[int] = field(default_factory=list)
    began: list[int] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    preemptions: int = 0
    steps: int = 0
    work: list[StepWork] = field(default_factory=list)
    idle: bool | None = None
    clock_s: float | None = None
    remarks: list[str] = field(default_factory=list)
    learned: dict[str, Any] | None = None
    moves: int = 0

    def add(self, other: "Report") -> None:
        """Take up what happened after this report."""
        self.answers += other.answers
        self.wanted += other.wanted
        self.began += other.began
        self.ended += other.ended
        self.preemptions += other.preemptions
        self.steps += other.steps
        self.work += other.work
        self.idle = self.idle if other.idle is None else other.idle
        self.clock_s = self.clock_s if other.clock_s is None else other.clock_s
        self.remarks += other.remarks
        self.learned = self.learned if other.learned is None else other.learned
        self.moves = max(self.moves, other.moves)

    def drop_wanted(self, rows: Collection[int]) -> None:
        """These have moved since; an engine that they moved to will want them anew."""
        self.wanted = [row for row in self.wanted if row not in rows]


@dataclass(frozen=True)
class Capacity:
    """Limits of a started engine, as it reports them.

    Attributes:
        limits: size of the KV cache, and limits of a step.
        context_tokens: most prompt plus output tokens of one request.
        graph_sizes: CUDA-graph batch sizes in use, empty when the engine captures none.
        version: name and version of the engine.
    """

    limits: EngineLimits
    context_tokens: int
    graph_sizes: list[int]
    version: str


@dataclass(frozen=True)
class Session:
    """What is left to run on an engine that starts.

    Attributes:
        left: rows that have no result yet; int64 [m].
        requests: their requests by the row of the first answer, in the order to send them where no
            policy says otherwise; int64.
        ended: output length of the rows that have an answer, else 0; int32 [n].
        first: rows, of first answers, to run before all others: they have failed once.
        alone: rows, of first answers, to run one by one, before everything: one of them may kill
            the engine.
        replan: whether output lengths are learned as requests end.
        shared: whether other engines run parts of the same plan, so that requests may move.
        clock_s: what the engine's own clock shows when it starts, where it has one.
        stock: whether the engine's own scheduler decides, and the policy is not asked.
        step_tokens: most tokens that a step may compute, where the engine was started with more.
    """

    left: "NDArray[np.int64]"
    requests: "NDArray[np.int64]"
    ended: "NDArray[np.int32]"
    first: tuple[int, ...] = ()
    alone: tuple[int, ...] = ()
    replan: bool = True
    shared: bool = False
    clock_s: float = 0.0
    stock: bool = False
    step_tokens: int | None = None


@dataclass(frozen=True)
class Move:
    """Requests that change from one engine of a run to another, as either of them is told.

    Attributes:
        give: rows, of first answers, that are another engine's from now on; none has been sent.
        take: rows, of first answers, that are this engine's from now on; none was sent to it, even
            where they were its own before and it wanted them.
        first, alone: those of ``take`` that go before others or one by one, as in `Session`.
        clock_s: what the engine's own clock shows at least when it takes them.
    """

    give: tuple[int, ...] = ()
    take: tuple[int, ...] = ()
    first: tuple[int, ...] = ()
    alone: tuple[int, ...] = ()
    clock_s: float = 0.0

    @property
    def rows(self) -> set[int]:
        """All rows that it speaks of."""
        return {*self.give, *self.take}

    def and_also(self, other: "Move") -> "Move":
        """This and another move of other requests at once."""
        return Move(
            self.give + other.give,
            self.take + other.take,
            self.first + other.first,
            self.alone + other.alone,
            max(self.clock_s, other.clock_s),
        )


@dataclass(frozen=True)
class Launch:
    """How to start an engine.

    Attributes:
        model: name or directory of the model.
        limits: those that the plan was made for, None for the engine's own. The size of the KV
            cache is the engine's to find out; its `Capacity` tells.
        tp: tensor-parallel degree.
        kv_dtype: element type of the KV cache, ``auto`` for the model's.
        context_tokens: longest context to allow, None for the model's own.
        block_size: tokens of a block of the KV cache, None for the engine's own choice.
        gpu_memory_utilization: share of the GPU's memory that it may use, None for its own choice.
        graphs: CUDA graphs to capture, by engine; an engine that is not named chooses itself.
        arguments: further engine arguments by the engine's own names; they win over the others.
        flags: the engine's own command line, after everything else.
        pdmux: share the GPU in space between prefill and decode.
        log_steps: report the work of each step.
        log: file for what the engine prints; None for a temporary one.
    """

    model: str
    limits: EngineLimits | None = None
    tp: int = 1
    kv_dtype: str = "auto"
    context_tokens: int | None = None
    block_size: int | None = None
    gpu_memory_utilization: float | None = None
    graphs: "Mapping[str, GraphSizes]" = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    pdmux: bool = False
    log_steps: bool = False
    log: Path | None = None

    def lacks_tokenizer(self) -> bool:
        """Whether the model is a directory without a tokenizer: token ids in, token ids out."""
        folder = Path(self.model)
        return folder.is_dir() and not any((folder / name).exists() for name in _TOKENIZER_FILES)


class Engine(Protocol):
    """A started engine, with the requests of one session to run."""

    capacity: Capacity

    def serve(self, requests: Sequence[EngineRequest]) -> Report:
        """Send requests, wait until something has happened, or for a second at most, and report.

        Raises:
            EngineDiedError: the engine is gone.
        """

    def pass_over(self, rows: Sequence[int]) -> None:
        """Wait no longer for requests that were wanted: they have their line already.

        These are beside a token of each running request; one in the middle of its prompt leaves its
        token to prefill.

        Args:
            rows: of first answers.
        """

    def move(self, move: Move) -> None:
        """Run other requests from now on; those that wait are arranged anew."""

    def stop(self) -> None:
        """Begin nothing more; what runs goes on to its end."""

    def close(self) -> None:
        """Stop the engine and free what it holds."""

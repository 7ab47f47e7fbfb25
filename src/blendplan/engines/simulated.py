"""The simulated engine as an engine: it steps, and time on its clock is simulated.

It takes the very steps of the compiled step loop (`blendplan.simulator.loop`), made of the same
parts. Only the policy is asked from Python, one request at a time, as a real engine's scheduler
would: so a replay of a plan takes exactly the planned steps.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from blendplan import __version__
from blendplan.checks.ranges import RANGES
from blendplan.cost.step import StepTable
from blendplan.engines.planned import PlannedAdmission
from blendplan.engines.protocol import (
    Answer,
    Capacity,
    Ended,
    EngineRequest,
    Move,
    Report,
    Session,
    StepWork,
)
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.hardware.kv_layout import KvLayout
from blendplan.planfile.plan import Plan
from blendplan.requests.record import MOST_TOKENS
from blendplan.simulator import steps
from blendplan.simulator.kv import cache_for, used_tokens
from blendplan.simulator.series import empty_series
from blendplan.simulator.workload import Workload


class SimulatedEngine:
    """The steps of `blendplan.simulator`, one at a time.

    Args:
        plan: whose policy is asked.
        session: what is left of it.
        workload: all requests that may be submitted; rows are theirs. They generate the output
            lengths that it says, unless a request knows its own.
        limits: limits of the engine.
        table: price of a step.
        layout: of the KV cache; None where all layers keep all tokens.
        max_model_len: longest context that it takes; what the KV cache holds without it.
        log_steps: report the work of each step.
    """

    def __init__(
        self,
        plan: Plan,
        session: Session,
        workload: Workload,
        limits: EngineLimits,
        table: StepTable,
        *,
        layout: KvLayout | None = None,
        max_model_len: int | None = None,
        log_steps: bool = False,
    ) -> None:
        held = limits.kv_blocks * limits.block_size + 1
        if layout is not None:
            held = min(layout.longest_request(limits.kv_blocks), RANGES["max_model_len"][1]) + 1
        self.capacity = Capacity(
            limits=limits,
            context_tokens=held if max_model_len is None else min(held, max_model_len),
            graph_sizes=[],
            version=f"simulated by blendplan {__version__}",
        )
        self._max_model_len = held if max_model_len is None else max_model_len
        self._table = table
        self._log_steps = log_steps
        self._answer = plan.column("answer")
        self._model = str(plan.metadata["model"])
        self._stops = _may_stop(plan)
        self._most_tokens = plan.table.column("max_tokens").fill_null(MOST_TOKENS).to_numpy()
        self._report = Report()
        self._engine = steps.idle_engine(
            workload.prompt_tokens, workload.output_tokens.copy(), limits, table.reach, layout
        )
        self._cache = cache_for(workload, limits, layout)
        self._engine.now[0].clock_s = self._told_s = session.clock_s
        self._series = empty_series()
        self._has_output = False
        self._in_step = False
        self._taken: StepWork | None = None
        self._admission = PlannedAdmission(plan, limits, session=session, tell=self._tell)
        self._sent: dict[int, _Sent] = {}
        self._preemptions = np.zeros(len(plan), dtype=np.int32)

    def serve(self, requests: Sequence[EngineRequest]) -> Report:
        """Take one simulated step, or as much of it as the requests that are there allow."""
        for request in requests:
            rows = range(request.row, request.row + request.answers)
            if request.output_tokens > 0:
                known = min(request.output_tokens, self._room(request.row))
                self._engine.output_tokens[rows.start : rows.stop] = known
            if all(map(self._ever_fits, rows)):
                self._sent[request.row] = _Sent(request, len(rows))
                for row in rows:
                    self._admission.arrived(row)
            else:
                self._admission.pass_over([request.row])
                self._report.answers.append(_too_long(request.row))
        if not self._admission.expected:
            self._step()
        self._report.add(self._admission.take_report())
        report, self._report = self._report, Report()
        if report.clock_s is None:
            report.clock_s = self._told_s
        return report

    def pass_over(self, rows: Sequence[int]) -> None:
        """Wait no longer for requests."""
        self._admission.pass_over(rows)

    def move(self, move: Move) -> None:
        """Run other requests from now on."""
        now = self._engine.now[0]
        if not now.running and not now.waiting_again:
            now.clock_s = self._told_s = max(float(now.clock_s), move.clock_s)
        self._report.drop_wanted(move.rows)
        self._admission.move(move)

    def stop(self) -> None:
        """Begin nothing more."""
        self._admission.stop()

    def _tell(self, report: Report) -> None:
        self._report.add(report)

    def _step(self) -> None:
        """One step, asking inside it which request goes next.

        Time stands still until one that is asked for is there; the step then goes on.
        """
        engine, cache = self._engine, self._cache
        now = engine.now[0]
        if not self._in_step:
            self._begin_step()
        self._admit()
        self._in_step = self._admission.expected > 0
        if self._in_step:
            return
        if now.async_scheduling:
            # The output of the step before this one is here, before this one takes its time.
            self._take_output()
        if steps.price(engine, cache, self._table, self._series):
            steps.sample(engine, cache)
            self._taken = self._work() if self._log_steps else None
            self._has_output = True
        if not now.async_scheduling:
            self._take_output()

    def _begin_step(self) -> None:
        """The running requests have their turn."""
        engine, admission = self._engine, self._admission
        now, step = engine.now[0], engine.step[0]
        used = float(used_tokens(self._cache))
        steps.begin(engine, admission.begin_step(used, self.generated_tokens, waits=True))
        steps.serve(engine, self._cache)
        for row in engine.waiting_again[now.waiting_again - step.lost : now.waiting_again]:
            self._preemptions[row] += 1
            admission.preempted(int(row))

    def _take_output(self) -> None:
        """What the last step computed is there: it is told, and those that are done leave."""
        if not self._has_output:
            return
        self._has_output = False
        engine, admission = self._engine, self._admission
        now = engine.now[0]
        left = steps.leave(engine, self._cache) if now.async_scheduling else engine.step[0].done
        self._told_s = float(now.clock_s)
        admission.did_step(1, self._told_s)
        if self._taken is not None:
            admission.worked(self._after(self._taken))
        for row in engine.done[:left].tolist():
            self._end(row)

    def generated_tokens(self) -> NDArray[np.int32]:
        """Output tokens of each row so far; int32 [n]."""
        return steps.generated_tokens(self._engine)

    def close(self) -> None:
        """Nothing to stop."""

    def _admit(self) -> None:
        engine, cache, now = self._engine, self._cache, self._engine.now[0]
        while steps.may_admit(engine):
            if now.waiting_again > 0:
                row = int(engine.waiting_again[now.waiting_again - 1])
                if not steps.admit(engine, cache, row):
                    return
                self._admission.resumed(row)
                continue
            row = self._admission.next_row()
            if row < 0 or not steps.admit(engine, cache, row):
                return
            self._admission.began(row)

    def _room(self, row: int) -> int:
        """Longest output that the context leaves a prompt; engines cut what is asked for to it."""
        return max(1, self._max_model_len - int(self._engine.prompt_tokens[row]))

    def _ever_fits(self, row: int) -> bool:
        total = int(self._engine.prompt_tokens[row]) + int(self._engine.output_tokens[row])
        return total <= self.capacity.context_tokens

    def _work(self) -> StepWork:
        """What the step at hand computes."""
        step = self._engine.step[0]
        return StepWork(
            prefill_tokens=int(step.prefill_tokens),
            prefill_sequences=int(step.prefill_sequences),
            prefill_pairs=float(step.prefill_pairs),
            decode_tokens=int(step.decode_sequences),
            kv_tokens_read=round(step.kv_tokens_read),
            time_s=float(step.time_s),
            kv_tokens_used=0,
            running=0,
            waiting=0,
        )

    def _after(self, work: StepWork) -> StepWork:
        """The same with what the engine holds now."""
        now = self._engine.now[0]
        return replace(
            work,
            kv_tokens_used=int(used_tokens(self._cache)),
            running=int(now.running),
            waiting=int(now.waiting_again) + self._admission.held,
        )

    def _end(self, row: int) -> None:
        """A sequence is done, and with the last of its request, that is answered."""
        engine = self._engine
        tokens, cached = int(engine.output_tokens[row]), int(engine.cached_tokens[row])
        self._admission.ended(Ended(row, cached, int(self._preemptions[row])), tokens)
        first = row - int(self._answer[row])
        sent = self._sent[first]
        sent.left -= 1
        sent.cached_tokens += cached
        sent.completion_tokens += tokens
        sent.reasons[row - first] = self._reason(row, tokens)
        if not sent.left:
            del self._sent[first]
            body = _body(sent, int(engine.prompt_tokens[row]), self._model)
            self._report.answers.append(Answer(first, 200, body))

    def _reason(self, row: int, tokens: int) -> str:
        """Why a server would say that an answer of so many tokens ends."""
        most = min(int(self._most_tokens[row]), self._room(row))
        return "stop" if self._stops[row] and tokens < most else "length"


def _may_stop(plan: Plan) -> NDArray[np.bool_]:
    """Whether a row ends by itself: one whose length is stated is cut off there; bool [n]."""
    stated: NDArray[np.bool_] = plan.table.column("output_tokens_known").is_null().to_numpy()
    return stated


@dataclass
class _Sent:
    """A request whose answers end one by one: how many are left, and totals of the others."""

    request: EngineRequest
    left: int
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasons: dict[int, str] = field(default_factory=dict)


def created() -> int:
    """When an answer was made, in Unix seconds."""
    return int(time.time())


def _body(sent: _Sent, prompt_tokens: int, model: str) -> bytes:
    """What a server would answer, without words."""
    chat = sent.request.url.endswith("/chat/completions")
    content = {"message": {"role": "assistant", "content": ""}} if chat else {"text": ""}
    repeated = (sent.request.answers - 1) * prompt_tokens
    cached = max(0, sent.cached_tokens - repeated)
    body = {
        "id": f"{'chatcmpl' if chat else 'cmpl'}-{sent.request.row}",
        "object": "chat.completion" if chat else "text_completion",
        "created": created(),
        "model": model,
        "system_fingerprint": f"simulated by blendplan {__version__}",
        "choices": [
            {"index": index, **content, "logprobs": None, "finish_reason": sent.reasons[index]}
            for index in range(sent.request.answers)
        ],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": sent.completion_tokens,
            "total_tokens": prompt_tokens + sent.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": cached},
        },
    }
    return json.dumps(body, separators=(",", ":")).encode()


def _too_long(row: int) -> Answer:
    message = "prompt and output together are longer than the KV cache"
    error = {"message": message, "type": "BadRequestError", "code": 400}
    return Answer(row, 400, json.dumps({"error": error}, separators=(",", ":")).encode())

"""SGLang: its engine with its own event loop; its scheduler is a process of SGLang's.

Written for SGLang 0.5.23 (sglang/srt/entrypoints/engine.py). The scheduler publishes its load in
shared memory after every batch; that is all an adapter sees of it between results.
"""

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from blendplan.engines.kind import EngineKind
from blendplan.engines.process import EngineProcess
from blendplan.engines.protocol import Capacity, EngineRequest, Launch, Refused, StepReport
from blendplan.engines.sglang.answers import outcome_of
from blendplan.engines.sglang.arguments import engine_arguments, generate_arguments
from blendplan.engines.words import not_importable
from blendplan.hardware.engine_limits import EngineLimits

if TYPE_CHECKING:
    from blendplan.planfile.plan import Plan

# How long a step waits for a result before it reports the load.
_POLL_S = 0.02


class SglangEngine:
    """A started SGLang engine.

    Raises:
        BlendplanError: SGLang is not installed, or does not know an argument.
    """

    def __init__(self, launch: Launch) -> None:
        try:
            import sglang
            from sglang.srt.server_args import ServerArgs
        except ImportError as error:
            raise not_importable("SGLang", "sglang", error) from None
        arguments = engine_arguments(launch, ServerArgs)
        self._engine = sglang.Engine(**arguments)
        self._loop: asyncio.AbstractEventLoop = self._engine.loop
        no_tokenizer = arguments.get("skip_tokenizer_init")
        self._tokenizer = None if no_tokenizer else self._engine.tokenizer_manager.tokenizer
        self._load = self._engine.tokenizer_manager.load_snapshot_reader
        self._something_ended = asyncio.Event()
        self._ended: list[tuple[int, Any]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._submitted_s = 0.0
        self._unseen_tokens = 0
        self.capacity = _capacity(self._engine.get_server_info())

    def step(
        self, requests: Sequence[EngineRequest], prefill_tokens: int | None = None
    ) -> StepReport:
        """Submit, wait for a result but not for long, and report.

        SGLang fixes the prefill tokens of a batch at its start: ``prefill_tokens`` has no effect.
        """
        report = StepReport(steps=0)
        self._loop.run_until_complete(self._submit_and_wait(requests))
        ended, self._ended = self._ended, []
        for row, answer in ended:
            outcome = outcome_of(row, answer, has_text=self._tokenizer is not None)
            if isinstance(outcome, Refused):
                report.refused.append(outcome)
            else:
                report.finished.append(outcome)
        self._tell_load(report)
        return report

    def close(self) -> None:
        """Stop the scheduler and whatever else SGLang started."""
        self._engine.shutdown()

    async def _submit_and_wait(self, requests: Sequence[EngineRequest]) -> None:
        for request in requests:
            # Tasks start in this order and reach the scheduler's queue in it.
            task = self._loop.create_task(self._generate(request))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if requests:
            self._submitted_s = time.time()
            self._unseen_tokens += sum(len(request.prompt_token_ids or ()) for request in requests)
        if not self._ended:
            self._something_ended.clear()
            try:
                await asyncio.wait_for(self._something_ended.wait(), _POLL_S)
            except TimeoutError:
                return

    async def _generate(self, request: EngineRequest) -> None:
        try:
            arguments = generate_arguments(request, self._tokenizer, self.capacity.context_tokens)
            answer = await self._engine.async_generate(**arguments, rid=str(request.row))
        except Exception as error:  # it answers the request, whatever it is
            answer = error
        self._ended.append((request.row, answer))
        self._something_ended.set()

    def _tell_load(self, report: StepReport) -> None:
        """Free tokens by the last load that the scheduler published."""
        load = self._load.read(0)
        report.running = len(self._tasks)
        report.free_kv_tokens = self.capacity.limits.kv_tokens
        if load is None:
            return
        if load.timestamp > self._submitted_s:
            self._unseen_tokens = 0
            report.waiting = load.num_waiting_reqs
            report.running = load.num_running_reqs
        free = self.capacity.limits.kv_tokens - load.num_used_tokens - self._unseen_tokens
        report.free_kv_tokens = max(0, free)


def _capacity(info: dict[str, Any]) -> Capacity:
    state = info["internal_states"][0]
    chunk = info["chunked_prefill_size"]
    return Capacity(
        limits=EngineLimits(
            kv_tokens=int(info["max_total_num_tokens"]),
            max_num_seqs=int(state["effective_max_running_requests_per_dp"]),
            max_num_batched_tokens=int(
                chunk if chunk and chunk > 0 else info["max_prefill_tokens"]
            ),
            block_size=int(info["page_size"]),
        ),
        context_tokens=int(info["max_req_input_len"]) + 1,
        graph_sizes=list(state.get("decode_cuda_graph_bs") or []),
        version=f"sglang {info['version']}",
    )


def _start(plan: "Plan | None", launch: Launch) -> EngineProcess:
    return EngineProcess(partial(SglangEngine, launch), log=launch.log)


SGLANG = EngineKind(
    title="SGLang",
    summary="on this machine's GPUs",
    start=_start,
    spatial_sharing=True,
    step_log=False,
)

"""`PlannedScheduler`: SGLang's own scheduler, with admission by a plan.

It changes which waiting request SGLang tries next and how many prompt tokens a step may have, and
nothing else: chunks, radix cache, retraction, structured outputs, LoRA and the overlap of
scheduling and computing stay SGLang's. Written for SGLang 0.5.23 (managers/scheduler.py).
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from sglang.srt.disaggregation.utils import DisaggregationMode
from sglang.srt.managers import scheduler as sglang_scheduler
from sglang.srt.managers.scheduler import Scheduler
from sglang.srt.managers.scheduler_components.output_streamer import SchedulerOutputStreamer
from sglang.srt.runtime_context import get_model, get_parallel, get_serving

from blendplan.cost.reach import Reach
from blendplan.engines.link import admission_of
from blendplan.engines.planned import PlannedAdmission
from blendplan.engines.prompt_check import check_tokenizer
from blendplan.engines.sglang import options
from blendplan.engines.sglang.rows import Rows
from blendplan.engines.sglang.sequences import Sequences
from blendplan.engines.sglang.turns import PlannedAdder, Turns
from blendplan.engines.sglang.watch import scheduled_work
from blendplan.engines.step_clock import StepClock
from blendplan.engines.tokenizer_files import tokenizer_folder
from blendplan.errors import BlendplanError
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.planfile.revive import reach_of

# Between two looks at a queue in which nothing may begin yet.
_PAUSE_S = 0.0005


class PlannedScheduler(Scheduler):  # type: ignore[misc]
    """A scheduler that admits in the order of a plan.

    The plan is named in the environment: see `blendplan.engines.sglang.options`. With tensor
    parallelism every rank schedules for itself; the first one asks the policy and tells the others.

    Raises:
        BlendplanError: no plan is named, it is not for this engine, or the engine has several
            schedulers that do not schedule the same.
    """

    waiting_queue: list[Any]
    _reach: Reach

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        given = options.options()
        if given is None:
            raise BlendplanError(
                f"the scheduler follows a plan and was given none; name one in {options.PLAN}"
            )
        self._check_alone()
        self._most_tokens = int(self.chunked_prefill_size or self.max_prefill_tokens)
        limits = EngineLimits(
            kv_tokens=int(self.max_total_num_tokens),
            max_num_seqs=int(self.max_running_requests),
            max_num_batched_tokens=self._most_tokens,
            block_size=int(self.page_size),
        )
        # It would hold back adapters whose requests the policy asks for.
        self.lora_drainer = None
        self._ranks = int(get_parallel().tp_size)
        self._word = torch.zeros(1, dtype=torch.int64)
        self._admission: PlannedAdmission | None = None
        self._sequences: Sequences | None = None
        if get_parallel().tp_rank == 0:
            admission = admission_of(given, limits)
            assert isinstance(admission, PlannedAdmission), "SGLang is started again for that"
            self._admission = admission
            if not self.skip_tokenizer_init:
                folder = tokenizer_folder(get_serving().tokenizer_path, get_model().revision)
                check_tokenizer(self._admission.plan, folder, self._admission.remark)
            rows = Rows(self._admission, replayed=given.path.is_dir())
            self._sequences = Sequences(self._admission, rows)
            self._reach = reach_of(self._admission.plan.metadata)
        self._refused: Any = None
        self._adder: PlannedAdder | None = None
        self._limit = self._most_tokens
        self._prefilling: deque[list[Any]] = deque()
        self._in_step = False
        self.output_streamer.before_output = self._report
        self._clock = StepClock() if given.log_steps and self._admission else None

    @property
    def used_kv_tokens(self) -> int:
        """KV tokens that requests hold."""
        return int(self.pool_stats_observer.get_pool_stats().full_num_used)

    def get_prefill_adder_class(self) -> Any:
        """What makes the adder of a step."""
        return self._new_adder

    def get_output_streamer_class(self) -> Any:
        """What sends outputs."""
        return ReportingStreamer

    def process_batch_result(self, batch: Any, result: Any) -> None:
        """As SGLang's; the policy is told who has ended."""
        self._in_step = True
        super().process_batch_result(batch, result)
        mode = batch.forward_mode
        if self._prefilling and (mode.is_extend() or mode.is_split_prefill()):
            self._prefilling.popleft()
        self._report(batch.reqs)

    def _report(self, requests: Iterable[Any]) -> None:
        """Report a step, and who has ended with it, before an answer overtakes that."""
        if self._admission is None or self._sequences is None:
            return
        for request in requests:
            if request.finished():
                self._sequences.left(request)
        if self._in_step:
            self._in_step = False
            self._admission.did_step(1)
            if self._clock is not None:
                waiting = len(self.waiting_queue)
                self._admission.worked(
                    self._clock.ended(kv_tokens_used=self.used_kv_tokens, waiting=waiting)
                )
        self._admission.flush()

    def get_next_batch_to_run(self, *args: Any, **kwargs: Any) -> Any:
        """As SGLang's."""
        plan = super().get_next_batch_to_run(*args, **kwargs)
        if self._clock is not None and plan.batch_to_run is not None:
            self._clock.scheduled(scheduled_work(plan.batch_to_run, self._adder, self._reach))
        return plan

    def send_abort_output(self, abort_req: Any, req: Any) -> None:
        """As SGLang's: a request ends without an answer."""
        if self._admission is not None and self._sequences is not None:
            self._sequences.left(req)
            self._admission.flush()
        super().send_abort_output(abort_req, req)

    def _add_request_to_queue(self, req: Any, is_retracted: bool = False) -> None:
        if self._sequences is not None:
            self._sequences.came(req)
        super()._add_request_to_queue(req, is_retracted)

    def _get_new_batch_prefill_raw(
        self, prefill_delayer_single_pass: Any, running_batch: Any
    ) -> tuple[Any, Any]:
        self._adder = None
        runs = bool(running_batch.reqs) or self.chunked_req is not None
        if not runs and not self.waiting_queue and not self.grammar_manager.has_waiting_grammars():
            return None, running_batch
        self._limit = self._begin_step()
        if self._limit <= 0 and running_batch.reqs:
            return None, running_batch
        waiting = self.waiting_queue
        if self.chunked_req is None and not self.grammar_manager.has_waiting_grammars():
            head = self._next()
            if head is None or (running_batch.batch_is_full and head is self._refused):
                if not runs and head is None:
                    time.sleep(_PAUSE_S)
                return None, running_batch
        # Full for the request that was tried last, which need not be the next one.
        running_batch.batch_is_full = False
        self.waiting_queue = Turns(waiting, self._turns)
        try:
            batch, running_batch = super()._get_new_batch_prefill_raw(
                prefill_delayer_single_pass, running_batch
            )
        finally:
            self.waiting_queue = list(list.__iter__(self.waiting_queue))
        admitted: list[Any] = [] if self._adder is None else self._adder.can_run_list
        for request in admitted:
            self._began(request)
        if batch is not None:
            self._prefilling.append(list(admitted))
        return batch, running_batch

    def _new_adder(self, *args: Any, **kwargs: Any) -> PlannedAdder:
        adder = PlannedAdder(*args, **kwargs)
        adder.meter(self._limit, goes_on=self.chunked_req is not None)
        adder.wait_for([one for requests in self._prefilling for one in requests])
        self._adder = adder
        return adder

    def _begin_step(self) -> int:
        """Prompt tokens that this step may compute."""
        limit = 0
        if self._admission is not None and self._sequences is not None:
            limit = self._admission.begin_step(
                float(self.used_kv_tokens), self._sequences.generated_tokens, waits=False
            )
        return self._agree(limit)

    def _turns(self) -> Iterator[Any]:
        """The requests to try in this step, as long as they find room."""
        while (request := self._next()) is not None:
            yield request
            if self._adder is None or not self._adder.took(request):
                self._refused = request
                return
            self._began(request)

    def _began(self, request: Any) -> None:
        if self._sequences is not None:
            self._sequences.began(request)

    def _next(self) -> Any:
        """The request to try next, None for none."""
        chosen = None if self._sequences is None else self._sequences.chosen()
        if self._ranks == 1:
            return chosen
        # Every rank has the same requests in the same order.
        waiting = list(list.__iter__(self.waiting_queue))
        place = self._agree(-1 if chosen is None else waiting.index(chosen))
        return None if place < 0 else waiting[place]

    def _agree(self, value: int) -> int:
        """What the first rank says, on all of them."""
        if self._ranks == 1:
            return value
        self._word[0] = value
        torch.distributed.broadcast(self._word, src=0, group=self.tp_cpu_group)
        return int(self._word[0])

    def _check_alone(self) -> None:
        """Refuse arrangements in which schedulers do not schedule the same."""
        parallel = get_parallel()
        for name, count in (("dp_size", parallel.num_dp_ranks), ("pp_size", parallel.pp_size)):
            if count > 1:
                raise BlendplanError(
                    f"a plan is followed by one scheduler, {name}={count} makes several in SGLang; "
                    "use tp_size, or plan with --replicas"
                )
        if self.disaggregation_mode != DisaggregationMode.NULL:
            raise BlendplanError(
                "a plan is followed by one engine that prefills and decodes; leave "
                "disaggregation_mode out"
            )
        if self.dllm_config is not None:
            raise BlendplanError(
                "SGLang schedules diffusion models in another way, which cannot follow a plan"
            )


class ReportingStreamer(SchedulerOutputStreamer):  # type: ignore[misc]
    """SGLang's own, with a call before outputs leave.

    Attributes:
        before_output: called with the requests.
    """

    before_output: Callable[[Iterable[Any]], None] = staticmethod(lambda requests: None)

    def stream_output(self, reqs: Any, *args: Any, **kwargs: Any) -> None:
        """As SGLang's."""
        self.before_output(reqs)
        super().stream_output(reqs, *args, **kwargs)


def run_planned_scheduler_process(*args: Any, **kwargs: Any) -> None:
    """For `Engine.run_scheduler_process_func`: SGLang's own, with another scheduler."""
    sglang_scheduler.Scheduler = PlannedScheduler
    sglang_scheduler.run_scheduler_process(*args, **kwargs)

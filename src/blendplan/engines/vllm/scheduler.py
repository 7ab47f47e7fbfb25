"""`PlannedScheduler`: vLLM's own scheduler, with admission by a plan.

It changes which waiting request vLLM tries next and how many prompt tokens a step may have, and
nothing else: chunks, prefix cache, preemption, structured outputs, LoRA, speculative and
asynchronous scheduling stay vLLM's. In a session that is to show what vLLM does by itself, it
changes nothing and only counts. Written for vLLM 0.32 (vllm/v1/core/sched/scheduler.py,
async_scheduler.py).
"""

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from vllm.platforms import current_platform
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.request import Request

from blendplan.engines.link import Admission, admission_of
from blendplan.engines.options import SchedulerOptions
from blendplan.engines.planned import PlannedAdmission
from blendplan.engines.prompt_check import check_tokenizer
from blendplan.engines.protocol import Ended
from blendplan.engines.step_clock import StepClock
from blendplan.engines.tokenizer_files import tokenizer_folder
from blendplan.engines.vllm.queue import PlannedQueue
from blendplan.engines.vllm.rows import Rows
from blendplan.engines.vllm.watch import scheduled_work
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.planfile.revive import reach_of

# Between two looks at a session that is about to be over.
_PAUSE_S = 0.001


class PlannedScheduler(AsyncScheduler):  # type: ignore[misc]
    """A scheduler that admits in the order of a plan.

    The plan is named in ``additional_config``: see `SchedulerOptions`.

    Raises:
        BlendplanError: no plan is named, or it is not for this engine.
    """

    waiting: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        options = SchedulerOptions.of(self.vllm_config.additional_config)
        self._pool = self.kv_cache_manager.block_pool
        # Blocks of all groups of layers, in slots, as the plan counts them: see `KvLayout`.
        self._tokens_per_block = int(self.block_size)
        config = self.scheduler_config
        # Block 0 is a placeholder that no request gets.
        limits = EngineLimits(
            kv_tokens=(self._pool.num_gpu_blocks - 1) * self._tokens_per_block,
            max_num_seqs=int(self.max_num_active_reqs),
            max_num_batched_tokens=int(
                config.max_num_scheduled_tokens or config.max_num_batched_tokens
            ),
            block_size=self._tokens_per_block,
        )
        self._log_steps = options.log_steps
        self._replayed = options.path.is_dir()
        self._own_queue: Any = self.waiting
        self._follow(admission_of(options, limits, self._follow_next))
        model = self.vllm_config.model_config
        if not model.skip_tokenizer_init:
            folder = tokenizer_folder(model.tokenizer, model.tokenizer_revision)
            check_tokenizer(self._admission.plan, folder, self._admission.remark)
        # On a CPU, a prompt that is cut in two cannot go on with a random generator of its own
        # (vllm/v1/worker/cpu_model_runner.py): the meter must not cut any while there is one.
        self._spares_seeds = current_platform.is_cpu()
        self._seeded: set[str] = set()

    def _follow(self, admission: Admission) -> None:
        """Ask this from now on; nothing runs or waits."""
        self._admission = admission
        self._most_tokens = admission.limits.max_num_batched_tokens
        self._rows = Rows(admission, replayed=self._replayed)
        self._reach = reach_of(admission.plan.metadata)
        self._clock = StepClock() if self._log_steps else None
        self._generated = np.zeros(len(admission.plan), dtype=np.int32)
        self._cached: dict[int, int] = {}
        self._first_token_s: dict[str, float] = {}
        # Those that lost their blocks when they needed them no more, which is no preemption.
        self._spent: set[str] = set()
        self._policy = admission if isinstance(admission, PlannedAdmission) else None
        self.waiting = (
            self._own_queue if self._policy is None else PlannedQueue(self._policy, self._rows)
        )

    def _follow_next(self, admission: Admission) -> None:
        """Ask this when the last step of the session before is over; the prefix cache is empty."""
        while (
            self.requests
            or (self._clock is not None and self._clock.is_running)
            or not self.reset_prefix_cache()
        ):
            time.sleep(_PAUSE_S)
        self._follow(admission)

    def add_request(self, request: Request) -> None:
        """As vLLM's; the policy is told that the request is there."""
        self._rows.of(request)
        if (
            self._spares_seeds
            and request.sampling_params
            and request.sampling_params.seed is not None
        ):
            self._seeded.add(request.request_id)
        super().add_request(request)

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """As vLLM's, within the policy's prefill tokens."""
        self.max_num_scheduled_tokens = self._most_tokens
        if self._policy is not None:
            self.max_num_scheduled_tokens = self._budget(self._policy)
        # vLLM gives the head of the queue blocks before it takes it off: it must stay the head.
        with self._admission.steady():
            output = super().schedule(*args, **kwargs)
        for new in output.scheduled_new_reqs:
            row = self._rows.of(self.requests[new.req_id])
            self._cached[row] = new.num_computed_tokens
            if self._policy is None:
                self._admission.began(row)
        if output.total_num_scheduled_tokens:
            self._admission.did_step(1)
            if self._clock is not None:
                self._clock.scheduled(scheduled_work(self, output, self._reach))
        self._admission.flush()
        return output

    def _budget(self, policy: PlannedAdmission) -> int:
        """Tokens that a step may compute."""
        limit = policy.begin_step(float(self.used_kv_tokens), self._generated_tokens, waits=False)
        if self.need_mamba_block_aligned_split:
            # Chunks end where states are kept: with less than a block, one might never begin.
            limit = max(limit, min(self._tokens_per_block, self._most_tokens))
        if self._seeded:
            limit = self._most_tokens
        # Running requests come first in vLLM's token budget, those that decode before the one that
        # may be mid-prompt, so a smaller budget of the step is a limit on prefill. The one that is
        # mid-prompt leaves its token to prefill, so the step has the size that the policy meant.
        return min(self._most_tokens, max(1, len(self.running) + limit))

    def update_from_output(self, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        """As vLLM's."""
        result = super().update_from_output(scheduler_output, *args, **kwargs)
        if self._clock is not None and scheduler_output.total_num_scheduled_tokens:
            running, waiting = self.get_request_counts()
            self._admission.worked(
                self._clock.ended(
                    kv_tokens_used=self.used_kv_tokens, running=running, waiting=waiting
                )
            )
        self._admission.flush()
        return result

    @property
    def used_kv_tokens(self) -> int:
        """KV tokens of the blocks that requests hold; slots where layers keep different things."""
        used = self._pool.num_gpu_blocks - 1 - self._pool.get_num_free_blocks()
        return int(used) * self._tokens_per_block

    def _preempt_request(self, request: Request, *args: Any, **kwargs: Any) -> None:
        spent = _last_token_is_under_way(request)
        super()._preempt_request(request, *args, **kwargs)
        if spent:
            self._spent.add(request.request_id)
        else:
            self._admission.preempted(self._rows.of(request))

    def _free_request(self, request: Request, *args: Any, **kwargs: Any) -> Any:
        freed = super()._free_request(request, *args, **kwargs)
        self._seeded.discard(request.request_id)
        row = self._rows.forget(request)
        if row >= 0:
            tokens = int(request.num_output_tokens)
            if row < len(self._generated):
                self._generated[row] = tokens
            cached = self._cached.pop(row, 0)
            preemptions = int(request.num_preemptions) - (request.request_id in self._spent)
            first_token_s = self._first_token_s.pop(request.request_id, None)
            self._admission.ended(Ended(row, cached, preemptions, first_token_s), tokens)
        self._spent.discard(request.request_id)
        return freed

    def _update_request_with_output(self, request: Request, *args: Any, **kwargs: Any) -> Any:
        if not request.num_output_tokens:
            self._first_token_s[request.request_id] = time.time() - request.arrival_time
        return super()._update_request_with_output(request, *args, **kwargs)

    def _generated_tokens(self) -> NDArray[np.int32]:
        """Output tokens of each row of the plan so far; int32 [n]."""
        generated = self._generated.copy()
        for request in self.requests.values():
            row = self._rows.of(request)
            if row < len(generated):
                generated[row] = request.num_output_tokens
        return generated


def _last_token_is_under_way(request: Request) -> bool:
    """Whether vLLM knows that a request needs no further step, as in its `schedule`."""
    placeholders = int(request.num_output_placeholders)
    sure = int(request.num_computed_tokens) + 2 - placeholders
    return placeholders > 0 and sure >= int(request.num_prompt_tokens) + int(request.max_tokens)

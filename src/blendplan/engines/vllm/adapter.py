"""vLLM: its engine in this process, stepped one scheduler step at a time.

Written for vLLM 0.32 (vllm/v1/engine/llm_engine.py, vllm/v1/core/sched/scheduler.py).
"""

import os
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from blendplan.engines.kind import EngineKind
from blendplan.engines.process import EngineProcess
from blendplan.engines.protocol import (
    Capacity,
    Choice,
    EngineRequest,
    Finished,
    Launch,
    Refused,
    StepReport,
    TokenLogprob,
)
from blendplan.engines.vllm.arguments import engine_arguments, sampling_arguments
from blendplan.engines.vllm.watch import SchedulerWatch
from blendplan.engines.words import UnsupportedParameterError, not_importable
from blendplan.hardware.engine_limits import EngineLimits

if TYPE_CHECKING:
    from blendplan.planfile.plan import Plan


class VllmEngine:
    """A started vLLM engine.

    Raises:
        BlendplanError: vLLM is not installed, or does not know an argument.
    """

    def __init__(self, launch: Launch) -> None:
        # The scheduler must live here: the policy is asked between its steps.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        try:
            import vllm
            from vllm.v1.engine.llm_engine import LLMEngine
        except ImportError as error:
            raise not_importable("vLLM", "vllm", error) from None
        self._vllm = vllm
        arguments = engine_arguments(launch, vllm.EngineArgs)
        self._llm = LLMEngine.from_engine_args(vllm.EngineArgs(**arguments))
        config = self._llm.vllm_config
        block_size = int(config.cache_config.block_size)
        self._scheduler = self._llm.engine_core.engine_core.scheduler
        self._watch = SchedulerWatch(self._scheduler, block_size, log_steps=launch.log_steps)
        no_tokenizer = arguments.get("skip_tokenizer_init")
        self._tokenizer = None if no_tokenizer else self._llm.get_tokenizer()
        # Block 0 is a placeholder that no request gets.
        blocks = int(config.cache_config.num_gpu_blocks) - 1
        self.capacity = Capacity(
            limits=EngineLimits(
                kv_tokens=blocks * block_size,
                max_num_seqs=int(self._scheduler.max_num_active_reqs),
                max_num_batched_tokens=int(self._scheduler.max_num_scheduled_tokens),
                block_size=block_size,
            ),
            context_tokens=int(config.model_config.max_model_len),
            graph_sizes=list(config.compilation_config.cudagraph_capture_sizes or []),
            version=f"vllm {vllm.__version__}",
        )

    def step(
        self, requests: Sequence[EngineRequest], prefill_tokens: int | None = None
    ) -> StepReport:
        """Submit and take one step of the scheduler."""
        report = StepReport()
        for request in requests:
            try:
                self._add(request)
            except UnsupportedParameterError as error:
                report.refused.append(
                    Refused(request.row, "unsupported_parameter", str(error), retry=False)
                )
            except Exception as error:  # vLLM's own errors are of several families
                message = " ".join(str(error).split())
                report.refused.append(Refused(request.row, "invalid_request", message, retry=False))
        self._watch.limit_prefill(prefill_tokens)
        for output in self._llm.step():
            if output.finished:
                self._collect(output, report)
        self._watch.tell(report)
        return report

    def close(self) -> None:
        """Free what the engine holds."""
        self._llm.engine_core.shutdown()

    def _add(self, request: EngineRequest) -> None:
        parameters = self._vllm.SamplingParams(
            **sampling_arguments(request, tokenizer=self._tokenizer is not None)
        )
        prompt: dict[str, Any] = {"prompt_token_ids": request.prompt_token_ids}
        if request.prompt_token_ids is None:
            if self._tokenizer is None:
                raise ValueError("the prompt is text and the engine has no tokenizer")
            text = request.text
            if request.messages is not None:
                text = self._tokenizer.apply_chat_template(
                    request.messages,
                    tools=request.tools,
                    add_generation_prompt=True,
                    tokenize=False,
                )
            # A chat template writes the special tokens itself.
            special = request.messages is None
            tokens = self._tokenizer.encode(text, add_special_tokens=special)
            prompt = {"prompt_token_ids": list(tokens)}
        self._llm.add_request(str(request.row), prompt, parameters)

    def _collect(self, output: Any, report: StepReport) -> None:
        row = int(output.request_id)
        reasons = {str(choice.finish_reason) for choice in output.outputs}
        if reasons & {"abort", "error"}:
            message = f"vLLM ended the request with {', '.join(sorted(reasons))}"
            report.refused.append(Refused(row, "engine_error", message, retry=True))
            return
        metrics, count = output.metrics, len(output.outputs)
        cached = self._watch.cached_tokens(range(row, row + count))
        report.finished.append(
            Finished(
                row=row,
                choices=[self._choice(choice) for choice in output.outputs],
                prompt_tokens=len(output.prompt_token_ids),
                cached_tokens=int(output.num_cached_tokens or 0) if count == 1 else cached,
                completion_tokens=sum(len(choice.token_ids) for choice in output.outputs),
                first_token_s=metrics.first_token_latency if metrics else None,
                preemptions=metrics.num_preemptions if metrics else None,
            )
        )

    def _choice(self, choice: Any) -> Choice:
        logprobs = None
        if choice.logprobs is not None:
            logprobs = [
                _logprob(token, entries)
                for token, entries in zip(choice.token_ids, choice.logprobs, strict=True)
            ]
        text = None if self._tokenizer is None else choice.text
        return Choice(list(choice.token_ids), text, str(choice.finish_reason), logprobs)


def _logprob(token: int, entries: Any) -> TokenLogprob:
    """One generated token from vLLM's {token id: log probability} of its place."""
    top = sorted(entries.items(), key=lambda entry: entry[1].rank or 0)
    chosen = entries[token]
    return TokenLogprob(
        token_id=token,
        text=chosen.decoded_token,
        logprob=chosen.logprob,
        top=[(other, entry.decoded_token, entry.logprob) for other, entry in top],
    )


def _start(plan: "Plan | None", launch: Launch) -> EngineProcess:
    return EngineProcess(partial(VllmEngine, launch), log=launch.log)


VLLM = EngineKind(title="vLLM", summary="on this machine's GPUs", start=_start)

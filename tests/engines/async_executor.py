"""`AsyncScheduled`: asynchronous scheduling on a CPU, where vLLM has none.

vLLM turns it off there (vllm/platforms/cpu.py). Below this executor the model runs as it does on a
CPU; what comes up after it, the scheduler and the engine's loop, is asynchronous.
"""

from vllm.v1.executor.uniproc_executor import UniProcExecutor


class AsyncScheduled(UniProcExecutor):  # type: ignore[misc]
    """For the engine argument ``distributed_executor_backend``."""

    def _init_executor(self) -> None:
        super()._init_executor()
        self.vllm_config.scheduler_config.async_scheduling = True

"""`VLLM`: how a replay starts vLLM, with its own server application in front."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from blendplan.engines.front import Front, StartFront
from blendplan.engines.kind import EngineKind, OnCpu
from blendplan.engines.protocol import Capacity, Launch, Session
from blendplan.engines.vllm.arguments import server_arguments
from blendplan.engines.words import not_importable
from blendplan.hardware.engine_limits import EngineLimits

if TYPE_CHECKING:
    from blendplan.engines.process import EngineProcess
    from blendplan.planfile.plan import Plan


@asynccontextmanager
async def vllm_front(launch: Launch, folder: Path | None) -> AsyncIterator[Front]:
    """vLLM's asynchronous engine and its server application, in this process.

    As `vllm serve` puts them together (vllm/entrypoints/launchers/api_server/entry.py).

    Raises:
        BlendplanError: vLLM is not installed, or does not know an argument.
    """
    try:
        import vllm
        from vllm.entrypoints.launchers.api_server.app_state import init_app_state
        from vllm.entrypoints.launchers.api_server.entry import build_async_engine_client
        from vllm.entrypoints.launchers.app import build_app
        from vllm.usage.usage_lib import UsageContext
    except ImportError as error:
        raise not_importable("vLLM", "vllm", error) from None
    args = server_arguments(launch, folder)
    context = UsageContext.OPENAI_BATCH_RUNNER
    async with build_async_engine_client(args, usage_context=context) as client:
        tasks = await client.get_supported_tasks()
        app = build_app(args, tasks, client.model_config)
        await init_app_state(client, app.state, args, tasks)
        config = client.vllm_config
        block_size = int(config.cache_config.block_size)
        scheduler = config.scheduler_config
        capacity = Capacity(
            limits=EngineLimits(
                # Block 0 is a placeholder that no request gets.
                kv_tokens=(int(config.cache_config.num_gpu_blocks) - 1) * block_size,
                max_num_seqs=int(scheduler.max_num_active_seqs or scheduler.max_num_seqs),
                max_num_batched_tokens=int(scheduler.max_num_batched_tokens),
                block_size=block_size,
                async_scheduling=bool(scheduler.async_scheduling),
            ),
            context_tokens=int(config.model_config.max_model_len),
            graph_sizes=list(config.compilation_config.cudagraph_capture_sizes or []),
            version=f"vllm {vllm.__version__}",
        )
        # Without a tokenizer there is no text to answer with.
        defaults = {"return_token_ids": True} if args.skip_tokenizer_init else {}

        def open_ended(prompt_tokens: int) -> dict[str, int]:
            """vLLM cuts what does not fit; only more than the context is refused."""
            return {"max_tokens": max(1, capacity.context_tokens - prompt_tokens)}

        yield Front(app, capacity, lambda: not client.errored, defaults, open_ended)


def _front(launch: Launch, folder: Path | None) -> StartFront:
    return partial(vllm_front, launch, folder)


def _start(plan: "Plan | None", launch: Launch, session: Session) -> "EngineProcess":
    from blendplan.engines.process import EngineProcess  # not to list engines

    return EngineProcess(partial(_front, launch), plan, session, log=launch.log)


def _kv_cache(kv_tokens: int, block_size: int) -> dict[str, int]:
    """Blocks, one of which is a placeholder that no request gets."""
    return {"num_gpu_blocks_override": kv_tokens // block_size + 1}


_ON_CPU = OnCpu(
    environment={
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        # Threads that wait for each other take longer over a small model than one does.
        "OMP_NUM_THREADS": "1",
        # The engine's process runs the model itself; on a CPU, vLLM starts one more otherwise.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "HF_HUB_OFFLINE": "1",
    },
    arguments={"enforce_eager": True, "gpu_memory_utilization": 0.2},
    block_size=32,
)

VLLM = EngineKind(
    title="vLLM",
    summary="on this machine's GPUs",
    start=_start,
    package="vllm",
    reusable=True,
    kv_cache=_kv_cache,
    memory_share="gpu_memory_utilization",
    on_cpu=_ON_CPU,
    tested=("vllm 0.32.0",),
)

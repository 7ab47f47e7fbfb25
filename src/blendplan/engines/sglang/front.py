"""`sglang_front`: SGLang's engine and its server application, in this process."""

import multiprocessing
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from blendplan.engines.front import Front
from blendplan.engines.link import PLAN
from blendplan.engines.prompt_check import check_tokenizer
from blendplan.engines.protocol import Capacity, Launch
from blendplan.engines.sglang import options
from blendplan.engines.sglang.arguments import server_arguments
from blendplan.engines.sglang.versions import check_scheduler
from blendplan.engines.tokenizer_files import tokenizer_folder
from blendplan.engines.words import not_importable
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.planfile.plan import Plan


@asynccontextmanager
async def sglang_front(launch: Launch, folder: Path | None) -> AsyncIterator[Front]:
    """Start them, and end them.

    As `launch_server` puts them together (sglang/srt/entrypoints/http_server.py).

    Raises:
        BlendplanError: SGLang is not installed, does not know an argument, or cannot follow the
            plan.
    """
    try:
        from sglang.srt.entrypoints import http_server
        from sglang.srt.entrypoints.engine import Engine
        from sglang.srt.managers.scheduler import Scheduler
        from sglang.srt.managers.tokenizer_manager import ServerStatus
        from sglang.srt.plugins import load_plugins
        from sglang.version import __version__

        from blendplan.engines.sglang.names import naming_tokenizer_manager
        from blendplan.engines.sglang.scheduler import run_planned_scheduler_process
    except ImportError as error:
        raise not_importable("SGLang", "sglang", error) from None
    check_scheduler(__version__, Scheduler)
    load_plugins()
    server_args = server_arguments(launch, planned=folder is not None)
    if folder is not None and not server_args.skip_tokenizer_init:
        # The scheduler looks too, and can remark; here it is before a model is loaded.
        tokenizer = server_args.tokenizer_path or server_args.model_path
        where = tokenizer_folder(tokenizer, server_args.revision)
        check_tokenizer(Plan.read(folder / PLAN), where, lambda _: None)

    class PlannedEngine(Engine):  # type: ignore[misc]
        init_tokenizer_manager_func = staticmethod(naming_tokenizer_manager)

    if folder is not None:
        options.follow(folder, log_steps=launch.log_steps)
        PlannedEngine.run_scheduler_process_func = staticmethod(run_planned_scheduler_process)
    engine = PlannedEngine(server_args=server_args)
    try:
        processes = len(multiprocessing.active_children())
        manager = engine.tokenizer_manager
        scheduler_info = engine._scheduler_init_result.scheduler_infos[0]

        def up(_: Any) -> bool:
            """No warm-up over the network."""
            manager.server_status = ServerStatus.Up
            return False

        http_server.set_global_state(
            http_server._GlobalState(
                tokenizer_manager=manager,
                template_manager=engine.template_manager,
                scheduler_info=scheduler_info,
            )
        )
        app = http_server.app
        app.is_single_tokenizer_mode = True
        app.server_args = server_args
        app.warmup_thread_kwargs = {"server_args": server_args, "execute_warmup_func": up}
        async with http_server.lifespan(app):
            info = await http_server.server_info()
            await manager.freeze_gc()
            yield Front(
                app,
                _capacity(info, scheduler_info, __version__),
                lambda: len(multiprocessing.active_children()) == processes,
                # Without a tokenizer there is no text to answer with.
                {"return_token_ids": True} if server_args.skip_tokenizer_init else {},
            )
    finally:
        engine.shutdown()


def _capacity(info: dict[str, Any], scheduler: dict[str, Any], version: str) -> Capacity:
    state = info["internal_states"][0]
    chunk = info["chunked_prefill_size"]
    return Capacity(
        limits=EngineLimits(
            kv_tokens=int(scheduler["max_total_num_tokens"]),
            max_num_seqs=int(state["effective_max_running_requests_per_dp"]),
            max_num_batched_tokens=int(
                chunk if chunk and chunk > 0 else info["max_prefill_tokens"]
            ),
            block_size=int(info["page_size"]),
        ),
        context_tokens=int(scheduler["max_req_input_len"]) + 1,
        graph_sizes=list(state.get("decode_cuda_graph_bs") or []),
        version=f"sglang {version}",
    )

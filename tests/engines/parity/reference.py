"""What vLLM's own servers answer, line by line.

    python -m tests.engines.parity.reference RUNS.json

The file holds a list of runs: ``flags`` (command line of the API server), ``lines`` (a request
file) and ``output``. All runs share one process, so that vLLM is imported once. A line goes to the
code of the batch runner; what that has no handler for (completions), and lines that would end its
run because they fail validation, go to the API server's app in memory. Each output line has the
request's ``custom_id``, the ``status``, the ``body`` and ``by``, the server that answered; where
the batch runner refuses by itself, ``or_status`` is the status that the API server has.
"""

import asyncio
import json
import os
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

_AT_ONCE = 24


async def answer_all(run: dict[str, Any]) -> None:
    """Start the engine of one run and write its answers."""
    import httpx
    from vllm.entrypoints.launchers.api_server.app_state import init_app_state
    from vllm.entrypoints.launchers.app import build_app
    from vllm.entrypoints.launchers.run_batch import build_endpoint_registry

    arguments = _parse([*run["flags"], "--disable-log-stats"])
    lines = Path(run["lines"]).read_text(encoding="utf-8").splitlines()
    engine = _start(arguments)
    try:
        tasks = await engine.get_supported_tasks()
        registry = await build_endpoint_registry(engine, arguments)
        app = build_app(arguments, tasks, engine.model_config)
        await init_app_state(engine, app.state, arguments, tasks)
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://server", timeout=None
        ) as server:
            free = asyncio.Semaphore(_AT_ONCE)

            async def answer(line: str) -> dict[str, Any]:
                async with free:
                    return await _answer(line, registry, server)

            answers = await asyncio.gather(*map(answer, lines))
    finally:
        engine.shutdown()
    text = "".join(json.dumps(answer) + "\n" for answer in answers)
    Path(run["output"]).write_text(text, encoding="utf-8")


def _start(arguments: Namespace) -> Any:
    """The engine, as vLLM's `build_async_engine_client` starts it, but in a fork.

    vLLM spawns it on a CPU, and the new process imports everything again.
    """
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.async_llm import AsyncLLM

    usage = UsageContext.OPENAI_BATCH_RUNNER
    config = AsyncEngineArgs.from_cli_args(arguments).create_engine_config(usage_context=usage)
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"
    return AsyncLLM.from_vllm_config(vllm_config=config, usage_context=usage)


def _parse(flags: list[str]) -> Namespace:
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    arguments: Namespace = make_arg_parser(FlexibleArgumentParser()).parse_args(flags)
    validate_parsed_serve_args(arguments)
    return arguments


async def _answer(line: str, registry: dict[str, Any], server: Any) -> dict[str, Any]:
    from pydantic import ValidationError
    from vllm.entrypoints.launchers.run_batch import (
        BatchProgressTracker,
        BatchRequestInput,
        handle_endpoint_request,
    )
    from vllm.exceptions import VLLMValidationError

    read = json.loads(line)
    try:
        request = BatchRequestInput.model_validate_json(line)
    except (ValidationError, VLLMValidationError, ValueError, TypeError, KeyError, AttributeError):
        return await _served(read, server)  # the batch runner ends here
    handled = None
    endpoint = registry.get(request.url.split("/")[-1])
    if endpoint is not None:
        handled = handle_endpoint_request(request, BatchProgressTracker(), **endpoint)
    if handled is None:
        return await _served(read, server)
    answered = json.loads((await handled).model_dump_json())
    response, error = answered["response"], answered["error"]
    found = {
        "custom_id": read["custom_id"],
        "status": response["status_code"],
        "body": response["body"] if error is None else error,
        "by": "batch runner",
    }
    if isinstance(error, str):  # its own words: it has no handler for such a model
        found["or_status"] = (await _served(read, server))["status"]
    return found


async def _served(read: dict[str, Any], server: Any) -> dict[str, Any]:
    answered = await server.post(read["url"], json=read["body"])
    try:
        body = answered.json()
    except ValueError:
        body = answered.text
    return {
        "custom_id": read["custom_id"],
        "status": answered.status_code,
        "body": body,
        "by": "API server",
    }


if __name__ == "__main__":
    for each in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        asyncio.run(answer_all(each))

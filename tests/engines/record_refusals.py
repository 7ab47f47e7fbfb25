"""Record what an engine's real server does with every kind of request.

    python tests/engines/record_refusals.py ENGINE MODEL tests/data/refusals/ENGINE.json

ENGINE is ``vllm`` or ``sglang``, installed here. MODEL is a folder with ``config.json`` and a
tokenizer; weights are random. Each kind gets the status, and for an error the message; with the
answer, how many tokens prompt and completion had. The context is 256 tokens, 16 sequences run at
once, the served name is ``tiny``, and no parser of tool calls is set.
"""

import asyncio
import json
import os
import subprocess
import sys
from argparse import Namespace
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.engines.request_kinds import kinds

CONTEXT_TOKENS = 256
SEQUENCES = 16
PORT = 30_117
LONGEST_S = 60.0  # one kind asks for 20,000 answers


async def over_vllm(model: str, bodies: dict[str, tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """What vLLM's server does."""
    import httpx
    from vllm.entrypoints.launchers.api_server.app_state import init_app_state
    from vllm.entrypoints.launchers.api_server.entry import build_async_engine_client
    from vllm.entrypoints.launchers.app import build_app
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    words = ["--model", model, "--load-format", "dummy", "--served-model-name", "tiny"]
    words += ["--enforce-eager", "--max-model-len", str(CONTEXT_TOKENS)]
    words += ["--max-num-seqs", str(SEQUENCES), "--max-num-batched-tokens", "512"]
    args: Namespace = make_arg_parser(FlexibleArgumentParser()).parse_args(words)
    async with build_async_engine_client(args) as engine:
        tasks = await engine.get_supported_tasks()
        app = build_app(args, tasks, engine.model_config)
        await init_app_state(engine, app.state, args, tasks)
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        return await _ask(transport, bodies)


async def over_sglang(model: str, bodies: dict[str, tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """What SGLang's server does; it runs as a process beside this one."""
    import httpx

    words = ["--model-path", model, "--load-format", "dummy", "--served-model-name", "tiny"]
    words += ["--device", "cpu", "--attention-backend", "torch_native", "--port", str(PORT)]
    words += ["--sampling-backend", "pytorch", "--disable-cuda-graph", "--disable-overlap-schedule"]
    words += ["--max-total-tokens", "4096", "--max-running-requests", str(SEQUENCES)]
    words += ["--mem-fraction-static", "0.3", "--chunked-prefill-size", "512", "--page-size", "1"]
    words += ["--context-length", str(CONTEXT_TOKENS), "--skip-server-warmup"]
    words += ["--grammar-backend", "none", "--dtype", "bfloat16"]
    server = subprocess.Popen([sys.executable, "-m", "sglang.launch_server", *words])
    try:
        for _ in range(600):
            await asyncio.sleep(1)
            assert server.poll() is None, "the server ended"
            try:
                if httpx.get(f"http://127.0.0.1:{PORT}/v1/models").status_code == 200:
                    break
            except httpx.HTTPError:
                continue
        return await _ask(httpx.AsyncHTTPTransport(), bodies, f"http://127.0.0.1:{PORT}")
    finally:
        server.terminate()
        server.wait()


async def _ask(
    transport: Any, bodies: dict[str, tuple[str, dict[str, Any]]], base: str = "http://x"
) -> dict[str, Any]:
    import httpx

    done: dict[str, Any] = {}
    async with httpx.AsyncClient(transport=transport, base_url=base, timeout=LONGEST_S) as client:
        for name, (url, body) in bodies.items():
            try:
                try:
                    answer = await client.post(url, json=body)
                except httpx.ReadError:  # a server that failed closes the connection
                    answer = await client.post(url, json=body)
                done[name] = _told(answer.status_code, answer.text)
            except httpx.TimeoutException:  # it was taken, which is all that is asked
                done[name] = {"status": 200, "unfinished": True}
            print(name, json.dumps(done[name])[:160], flush=True)
    return done


def _told(status: int, text: str) -> dict[str, Any]:
    if text.startswith("data:"):
        return {"status": status, "streams": True}
    try:
        body = json.loads(text)
    except ValueError:  # a defect of the server: text, not JSON
        return {"status": status, "message": text[:400]}
    if status != 200:
        error = body.get("error", body)
        message = error.get("message", error) if isinstance(error, dict) else error
        return {"status": status, "message": str(message)[:400]}
    usage = body["usage"]
    return {
        "status": status,
        "prompt_tokens": usage["prompt_tokens"],
        "completion_tokens": usage["completion_tokens"],
        "finish_reasons": sorted({choice["finish_reason"] for choice in body["choices"]}),
    }


def main() -> None:
    engine, model, output = sys.argv[1:]
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    over = {"vllm": over_vllm, "sglang": over_sglang}[engine]
    told = asyncio.run(over(model, kinds()))
    recording = {"engine": engine, "version": import_module(engine).__version__, "kinds": told}
    Path(output).write_text(json.dumps(recording, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()

"""The child process of a replay: an engine with its own server application in front.

It takes requests from the parent, posts each to the application and sends the answers back, many
at once. What the engine's scheduler has to say goes to the parent by a socket of its own.
"""

import asyncio
import contextlib
import json
import os
import pickle
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from blendplan.engines.asgi import App, post
from blendplan.engines.protocol import Answer, Capacity, EngineRequest
from blendplan.errors import BlendplanError

READY, REFUSED, ANSWERS, FAILED = "ready", "refused", "answers", "failed"
# Names a request of a plan to the engine, and so to its scheduler, by its row.
REQUEST_ID = "blendplan-{row}"
_ERROR_CHARACTERS = 300


@dataclass(frozen=True)
class Front:
    """A started engine with its server application.

    Attributes:
        app: the application.
        capacity: limits of the engine.
        alive: whether the engine behind the application lives.
        defaults: fields for bodies that do not have them.
        open_ended: fields of a completion that only the context limits, by its prompt length.
    """

    app: App
    capacity: Capacity
    alive: Callable[[], bool]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    open_ended: Callable[[int], Mapping[str, Any]] = lambda prompt_tokens: {}


StartFront = Callable[[], AbstractAsyncContextManager[Front]]


async def serve(pipe: Connection, start: StartFront) -> int:
    """Start an engine and answer what the parent sends until it hangs up.

    Returns:
        exit code of the process.
    """
    loop = asyncio.get_running_loop()
    async with start() as front:
        outbox: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()
        pipe.send((READY, front.capacity))
        ended: asyncio.Future[int] = loop.create_future()
        tasks: set[asyncio.Task[None]] = set()

        async def answer(request: EngineRequest) -> None:
            answered = await _answer(front, request)
            if answered.status >= 500 and not front.alive():
                print(f"request {request.row}: {answered.body!r}", file=sys.stderr)
                if not ended.done():
                    ended.set_result(1)
                return
            outbox.put(answered)

        def begin(requests: list[EngineRequest]) -> None:
            for request in requests:
                task = loop.create_task(answer(request))
                tasks.add(task)
                task.add_done_callback(tasks.discard)

        def hang_up() -> None:
            if not ended.done():
                ended.set_result(0)

        # Sending may have to wait for the parent, which may be waiting to send itself.
        sender = threading.Thread(target=_send, args=(pipe, outbox), daemon=True)
        sender.start()
        reader = threading.Thread(target=_read, args=(pipe, loop, begin, hang_up), daemon=True)
        reader.start()
        try:
            return await ended
        finally:
            for task in tasks:
                task.cancel()
            outbox.put(None)
            sender.join()


def _read(
    pipe: Connection,
    loop: asyncio.AbstractEventLoop,
    begin: Callable[[list[EngineRequest]], None],
    hang_up: Callable[[], None],
) -> None:
    """Hand what the parent sends to the loop."""
    with contextlib.suppress(EOFError, OSError):
        while (requests := pickle.loads(pipe.recv_bytes())) is not None:
            loop.call_soon_threadsafe(begin, requests)
    with contextlib.suppress(RuntimeError):  # the loop has ended by itself
        loop.call_soon_threadsafe(hang_up)


async def _answer(front: Front, request: EngineRequest) -> Answer:
    headers = {"x-request-id": REQUEST_ID.format(row=request.row)}
    body, more = request.body, dict(front.defaults)
    if request.open_prompt_tokens >= 0:
        more |= front.open_ended(request.open_prompt_tokens)
    if more:
        body = json.dumps({**more, **json.loads(body)}).encode()
    try:
        response = await post(front.app, request.url, body, headers)
    except Exception as error:
        traceback.print_exc()
        return Answer(request.row, 500, _error(500, one_line(error)))
    if not response.content_type.startswith(b"application/json"):
        kind = response.content_type.decode(errors="replace") or "nothing"
        message = f"the engine answered {kind}, not JSON; ask for no stream and no file"
        return Answer(request.row, 400, _error(400, message))
    return Answer(request.row, response.status, response.body)


def _error(status: int, message: str) -> bytes:
    return json.dumps({"error": {"message": message, "code": status}}).encode()


def _send(pipe: Connection, outbox: "queue.SimpleQueue[Answer | None]") -> None:
    """Send answers as they come, all that are there at once."""
    with contextlib.suppress(OSError):
        while True:
            answers = [outbox.get()]
            while not outbox.empty():
                answers.append(outbox.get())
            pipe.send((ANSWERS, [answer for answer in answers if answer is not None]))
            if answers[-1] is None:
                return


def one_line(error: Exception) -> str:
    """An error in one line, of bounded length."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:_ERROR_CHARACTERS]}" if text else type(error).__name__


def _run(pipe: Connection) -> int:
    try:
        start: StartFront = pickle.loads(pipe.recv_bytes())
        return _in_loop(pipe, start)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return 1  # the parent is gone, and with it the need for an engine
    except BlendplanError as error:
        pipe.send((REFUSED, str(error)))
        return 0
    except Exception as error:
        traceback.print_exc()
        pipe.send((FAILED, f"the engine did not start ({one_line(error)})"))
        return 1


def _in_loop(pipe: Connection, start: StartFront) -> int:
    try:
        import uvloop
    except ImportError:
        return asyncio.run(serve(pipe, start))
    code: int = uvloop.run(serve(pipe, start))
    return code


def main() -> None:
    """The child: serve the parent whose end of the pipe is named on the command line."""
    descriptor = int(sys.argv[1])
    os.set_inheritable(descriptor, False)
    code = _run(Connection(descriptor))
    sys.stdout.flush()
    sys.stderr.flush()
    # The engine's own children go too.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.killpg(0, signal.SIGTERM)
    # Not waiting for threads that a broken engine may have left.
    os._exit(code)

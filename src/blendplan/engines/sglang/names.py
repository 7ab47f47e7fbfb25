"""`NamingTokenizerManager`: SGLang's own, which tells the scheduler which request of a plan it is.

A request of a replay bears its name in the header ``X-Request-Id``; SGLang does not pass it on. Its
scheduler is told by the ``routing_key``, which no answer shows and no policy but ``routing-key``
looks at, or, where there is none (embeddings), by the request id, which these answers do not show.
"""

from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

from sglang.srt.entrypoints.engine import init_tokenizer_manager
from sglang.srt.managers.io_struct import EmbeddingReqInput, TokenizedGenerateReqInput
from sglang.srt.managers.tokenizer_manager import TokenizerManager
from sglang.srt.runtime_context import get_serving

_name: ContextVar[str | None] = ContextVar("name", default=None)


class NamingTokenizerManager(TokenizerManager):  # type: ignore[misc]
    """SGLang's, with names."""

    async def generate_request(self, obj: Any, request: Any = None) -> AsyncIterator[Any]:
        """As SGLang's."""
        name = None if request is None else request.headers.get("x-request-id")
        # For all that is sent to the scheduler on behalf of this request, by the same task.
        _name.set(name)
        if name is not None and isinstance(obj, EmbeddingReqInput) and obj.rid is None:
            obj.normalize_batch_and_arguments()
            obj.rid = (
                [f"{name}-{rid}" for rid in obj.rid]
                if isinstance(obj.rid, list)
                else (f"{name}-{obj.rid}")
            )
        async for response in super().generate_request(obj, request):
            if get_serving().skip_tokenizer_init:
                _without_text(response)
            yield response

    async def _send_one_request(self, tokenized_obj: Any) -> None:
        if isinstance(tokenized_obj, TokenizedGenerateReqInput) and _name.get() is not None:
            tokenized_obj.routing_key = _name.get()
        await super()._send_one_request(tokenized_obj)


def _without_text(response: Any) -> None:
    """Let SGLang's handlers, which look for text, answer where there is no tokenizer."""
    for one in response if isinstance(response, list) else [response]:
        one.setdefault("text", "")


def naming_tokenizer_manager(server_args: Any, port_args: Any) -> Any:
    """For `Engine.init_tokenizer_manager_func`."""
    return init_tokenizer_manager(server_args, port_args, NamingTokenizerManager)

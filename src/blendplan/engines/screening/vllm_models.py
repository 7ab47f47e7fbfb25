"""vLLM's own request models, asked in a process that has imported vLLM.

The steps are those of its server, without an engine: the request model, its tokenisation
parameters, its sampling parameters and their check against the model.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from blendplan.engines.screening.bodies import CHAT, COMPLETION, Body
from blendplan.engines.screening.fields import TAKEN, Verdict, refused
from blendplan.engines.screening.server import Server
from blendplan.engines.screening.vllm_rules import judge_server


class VllmModels:
    """Judges bodies as vLLM's server.

    Args:
        server: how the server will be started.
        model: folder of the model, where there is one; structured outputs are checked with its
            tokenizer, and not checked without.
    """

    def __init__(self, server: Server, model: str) -> None:
        import vllm
        from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
        from vllm.entrypoints.openai.completion.protocol import CompletionRequest
        from vllm.entrypoints.serve.utils.api_utils import get_max_tokens

        self.version = str(vllm.__version__)
        self._server = server
        self._request: dict[str, Any] = {CHAT: ChatCompletionRequest, COMPLETION: CompletionRequest}
        self._most_tokens = get_max_tokens
        self._model: Any = SimpleNamespace(
            max_model_len=server.max_model_len,
            max_logprobs=server.arguments.get("max_logprobs", 20),
            get_vocab_size=lambda: server.vocab,
            is_diffusion=False,
        )
        self._tokenizer = _tokenizer(model)

    def fields(self) -> dict[str, list[str]]:
        """Names that each endpoint knows."""
        return {url: list(kind.model_fields) for url, kind in self._request.items()}

    def judge(self, body: Body) -> Verdict:
        """What the server does with a request."""
        kind = self._request.get(body.url)
        if kind is None:
            return TAKEN
        try:
            self._check(kind, body)
        except Exception as error:  # pydantic's, vLLM's own, or what a value runs into
            return refused(*told(error))
        return judge_server(body, self._server)

    def _check(self, kind: Any, body: Body) -> None:
        request = kind.model_validate(body.fields)
        request.build_tok_params(self._model)
        stated = request.max_tokens
        if body.url == CHAT and request.max_completion_tokens is not None:
            stated = request.max_completion_tokens
        most = self._most_tokens(self._server.max_model_len, stated, 1, {})
        if request.use_beam_search:
            request.to_beam_search_params(most, {})
            return
        sampling = request.to_sampling_params(most, {})
        structure = None
        if self._tokenizer is not None:
            backend = self._server.arguments.get("structured_outputs_backend", "auto")
            structure = SimpleNamespace(backend=backend, disable_any_whitespace=False)
        sampling.verify(self._model, None, structure, self._tokenizer)


def _tokenizer(model: str) -> Any:
    if not Path(model).is_dir():
        return None
    try:
        from vllm.tokenizers import get_tokenizer

        return get_tokenizer(model)
    except Exception:  # whatever a tokenizer of a third party runs into
        return None


def told(error: Exception) -> tuple[str, str]:
    """The first line of what the engine says, and the field that it is about."""
    errors = getattr(error, "errors", None)
    if callable(errors):
        first = errors()[0]
        place = first["loc"]
        field = str(place[0]) if place else _parameter(first.get("ctx", {}).get("error"))
        where = ".".join(str(part) for part in place if not str(part).startswith("function-"))
        message = f'"{where}": {first["msg"]}' if where else str(first["msg"])
        return _line(message), f"invalid_field:{field}"
    return _line(str(error) or type(error).__name__), f"invalid_field:{_parameter(error)}"


def _parameter(error: object) -> str:
    name = getattr(error, "parameter", None)
    return str(name).partition(".")[0] if name else "request"


def _line(text: str) -> str:
    return text.removeprefix("Value error, ").splitlines()[0][:300]

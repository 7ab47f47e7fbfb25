"""SGLang's own request models, asked in a process that has imported SGLang.

The steps are those of its server, without an engine: the request model, and its sampling
parameters checked against the vocabulary. What its handlers check beside that is in
`sglang_rules`.
"""

from typing import Any

from blendplan.engines.screening import sglang_rules
from blendplan.engines.screening.bodies import CHAT, COMPLETION, Body
from blendplan.engines.screening.fields import TAKEN, Verdict, refused
from blendplan.engines.screening.server import Server
from blendplan.engines.screening.vllm_models import told


class SglangModels:
    """Judges bodies as SGLang's server.

    Args:
        server: how the server will be started.
        model: not needed.
    """

    def __init__(self, server: Server, model: str) -> None:
        import sglang
        from sglang.srt.entrypoints.openai.protocol import ChatCompletionRequest, CompletionRequest
        from sglang.srt.sampling.sampling_params import SamplingParams

        self.version = str(sglang.__version__)
        self._server = server
        self._request: dict[str, Any] = {CHAT: ChatCompletionRequest, COMPLETION: CompletionRequest}
        self._sampling: Any = SamplingParams

    def fields(self) -> dict[str, list[str]]:
        """Names that each endpoint knows."""
        return {url: list(kind.model_fields) for url, kind in self._request.items()}

    def judge(self, body: Body) -> Verdict:
        """What the server does with a request."""
        kind = self._request.get(body.url)
        if kind is None:
            return TAKEN
        try:
            request = kind.model_validate(body.fields)
            self._check(request, body)
        except Exception as error:  # pydantic's, SGLang's own, or what a value runs into
            return refused(*told(error))
        by_handlers = sglang_rules.judge_fields(body, self._server)
        return by_handlers if by_handlers.refuses else sglang_rules.judge_server(body, self._server)

    def _check(self, request: Any, body: Body) -> None:
        if body.url == CHAT:
            stop = request.stop or []
            parameters = request.to_sampling_params(stop if isinstance(stop, list) else [stop], {})
        else:
            from sglang.srt.entrypoints.openai.serving_completions import OpenAIServingCompletion

            build: Any = OpenAIServingCompletion._build_sampling_params
            parameters = build(None, request)
        sampling = self._sampling(**parameters)
        sampling.verify(self._server.vocab)

"""Other addresses, other models: lines of a batch file that are no plain chat of the one model."""

from typing import Any

from tests.engines.parity.chat_kinds import PERSON
from tests.engines.parity.kind import ABSENT, CHAT, CONTEXT, MODEL, Kind, Text, chat, said, words
from tests.engines.parity.models import END, THINK_END, TURN_END
from tests.engines.parity.tool_kinds import BIRDS, WEATHER, called, history

ADAPTER = "small-adapter"  # the name under which the server knows the LoRA adapter

_RESPONSE = {"model": MODEL, "input": "Hello", "temperature": 0, "max_output_tokens": 8}
_ASK = {"model": MODEL, "messages": [said("user", "Hello")], "temperature": 0, "max_tokens": 4}
_FULL = "https://api.openai.com/v1/chat/completions"
_AZURE = "https://mine.openai.azure.com/openai/deployments/small/chat/completions"

URL_KINDS: list[Kind] = [
    Kind("url-full", _ASK, _FULL),
    # The address of another service names the same endpoint.
    Kind("url-azure", _ASK, _AZURE, status=404, here=200),
    # Planning refuses it with the status of the batch runner.
    Kind("url-unknown", _ASK, "/v1/poems", status=404, here=400),
    Kind("url-without-version", _ASK, "/chat/completions", status=404, here=200),
    Kind("url-responses", _RESPONSE, "/v1/responses"),
    Kind("url-embeddings", {"model": MODEL, "input": "Hello"}, "/v1/embeddings", status=400),
    Kind("url-score", {"model": MODEL, "text_1": "a", "text_2": "b"}, "/score", status=400),
    Kind("method-get", _ASK, method="GET"),
    Kind("method-small-letters", _ASK, method="post"),
]


def parts(name: str, status: int = 200, **fields: Any) -> Kind:
    """A chat completion of the model whose template iterates over parts."""
    return chat(f"parts-{name}", status, **fields)


# The model has sampling defaults, a reasoning parser and an adapter; no choice of tools.
PARTS_KINDS: list[Kind] = [
    parts("default-sampling", temperature=ABSENT),
    parts("default-sampling-seeded", temperature=ABSENT, seed=3),
    parts("default-penalty-only", temperature=0),
    parts("defaults-replaced", temperature=1.0, top_k=0, repetition_penalty=1.0, seed=4),
    parts("penalty-replaced", repetition_penalty=1.0),
    parts("default-length", max_tokens=ABSENT),
    parts("length-over-default", max_tokens=40),
    parts("second-end", logit_bias={str(TURN_END): 100}),
    parts("first-end", logit_bias={str(END): 100}),
    parts("two-parts", messages=[said("user", words("Describe the sea.", "In a line."))]),
    parts(
        "mixed-contents", messages=[said("system", "Short."), said("user", words("Why", "now?"))]
    ),
    parts("developer", messages=[said("developer", "Be brief."), said("user", "Why?")]),
    parts(
        "assistant-null", messages=[said("user", "A"), said("assistant", None), said("user", "B")]
    ),
    parts("history", messages=history()),
    parts("history-result-parts", messages=history(result=words("Rain", "all day"))),
    parts("history-arguments-an-object", 400, messages=history(arguments={"city": "Oslo"})),
    parts("history-empty-arguments", messages=history(arguments="")),
    parts("history-with-tools", messages=history(), tools=[WEATHER], tool_choice="none"),
    parts(
        "history-two-calls",
        messages=[
            said("user", "Both?"),
            said("assistant", "", tool_calls=[called(), called("count_birds")]),
        ],
    ),
    parts("tools-default", 400, tools=[WEATHER]),
    parts("tools-none", tools=[WEATHER, BIRDS], tool_choice="none"),
    parts("tools-required", 400, tools=[BIRDS], tool_choice="required"),
    parts("thought-ends", logit_bias={str(THINK_END): 60}, repetition_penalty=50.0),
    parts("thought-hidden", include_reasoning=False),
    # Not beside other requests for log probabilities: vLLM 0.32 mixes them up in one step.
    parts("logprobs-of-tokens", max_tokens=3, logprobs=True, logprob_token_ids=[300, 301]),
    parts("thinking-off", chat_template_kwargs={"enable_thinking": False}),
    parts(
        "thinking-off-schema",
        max_tokens=60,
        chat_template_kwargs={"enable_thinking": False},
        response_format={"type": "json_schema", "json_schema": {"name": "p", "schema": PERSON}},
    ),
    parts(
        "prefill",
        messages=[said("user", "Begin"), said("assistant", "The boats")],
        add_generation_prompt=False,
        continue_final_message=True,
    ),
    parts("own-template", chat_template="{% for m in messages %}{{ m.content }}{% endfor %}"),
    parts("adapter", model=ADAPTER),
    parts("adapter-unknown", 404, model="other-adapter"),
    parts("base-beside-adapter"),
    parts("over-context", 400, messages=[said("user", "boats " * 2 * CONTEXT)]),
]

_EMBED, _SCORE, _RERANK = "/v1/embeddings", "/score", "/rerank"


def _pooled(name: str, url: str, status: int = 200, *, text: Text = "same", **fields: Any) -> Kind:
    return Kind(f"pooled-{name}", {"model": MODEL} | fields, url, status=status, text=text)


# The same weights used for pooling: embeddings, scores and ranks.
POOLED_KINDS: list[Kind] = [
    _pooled("text", _EMBED, input="The harbour was quiet"),
    _pooled("list-of-one", _EMBED, input=["The harbour was quiet"]),
    _pooled("list-of-two", _EMBED, input=["The harbour", "A library"]),
    _pooled("tokens", _EMBED, input=[1, 300, 301, 302]),
    # Bytes of numbers that are about the same.
    _pooled("base64", _EMBED, text="any", input="The harbour was quiet", encoding_format="base64"),
    _pooled("dimensions", _EMBED, 400, input="The harbour was quiet", dimensions=16),
    _pooled("truncated", _EMBED, input="The harbour was quiet", truncate_prompt_tokens=4),
    _pooled("messages", _EMBED, messages=[said("user", "The harbour")]),
    _pooled("input-missing", _EMBED, 400),
    _pooled("over-context", _EMBED, 400, input="harbour boats " * CONTEXT),
    _pooled("score", _SCORE, text_1="Which boats?", text_2="The fishing boats"),
    _pooled("score-of-two", "/v1/score", text_1="Which boats?", text_2=["Fishing", "None"]),
    _pooled("score-half", _SCORE, 400, text_1="Which boats?"),
    _pooled("rerank", "/v1/rerank", query="Which boats?", documents=["Fishing", "None"]),
    _pooled("rerank-first", _RERANK, query="Which?", documents=["Fishing", "None"], top_n=1),
    _pooled("rerank-without-documents", _RERANK, 400, query="Which?"),
    Kind("pooled-chat", _ASK, CHAT, status=400),
]

"""Chat completions: messages, templates, sampling, log probabilities, structured output."""

from tests.engines.parity.kind import ABSENT, CONTEXT, Kind, chat, said, words
from tests.engines.parity.models import END

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 5},
        "age": {"type": "integer", "minimum": 1, "maximum": 99},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
_MANY_TOKENS = list(range(100, 400))
_PNG = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUg=="

MESSAGES: list[Kind] = [
    chat("chat-plain"),
    chat(
        "chat-system", messages=[said("system", "Answer in one word."), said("user", "Which fish?")]
    ),
    chat(
        "chat-several-turns",
        messages=[
            said("user", "Name a river."),
            said("assistant", "The Glomma."),
            said("user", "And a lake?"),
        ],
    ),
    chat("chat-named-speaker", messages=[said("user", "Good morning", name="ada")]),
    chat("chat-one-part", messages=[said("user", words("Describe the harbour."))]),
    chat(
        "chat-two-parts",
        messages=[said("user", words("Describe the harbour.", "Use few words."))],
    ),
    chat("chat-strings-as-parts", 400, messages=[said("user", ["Describe", "the harbour."])]),
    chat(
        "chat-part-without-type",
        400,
        messages=[said("user", [{"text": "Describe the harbour, please."}])],
    ),
    chat(
        "chat-part-of-unknown-type",
        400,
        messages=[said("user", [{"type": "smell", "smell": "tar"}])],
    ),
    chat(
        "chat-assistant-parts",
        messages=[
            said("user", "Begin."),
            said("assistant", words("One", "two")),
            said("user", "Go"),
        ],
    ),
    chat("chat-developer", messages=[said("developer", "Be brief."), said("user", "Why?")]),
    chat("chat-unknown-role", messages=[said("narrator", "It was night.")]),
    chat("chat-empty-text", messages=[said("user", "")]),
    chat("chat-empty-system", messages=[said("system", ""), said("user", "Which way?")]),
    chat(
        "chat-assistant-null",
        messages=[said("user", "Hello"), said("assistant", None), said("user", "Are you there?")],
    ),
    chat(
        "chat-assistant-without-content",
        messages=[said("user", "Hello"), said("assistant"), said("user", "Are you there?")],
    ),
    chat("chat-user-null", 400, messages=[said("user", None)]),
    chat(
        "chat-reasoning-in-history",
        messages=[
            said("user", "Two and two?"),
            said("assistant", "Four.", reasoning_content="Add them."),
            said("user", "And three?"),
        ],
    ),
    chat("chat-no-messages", 400, messages=[]),
    chat("chat-messages-missing", 400, messages=ABSENT),
    chat("chat-messages-a-text", 400, messages="Which words?"),
    chat("chat-message-without-role", 400, messages=[{"content": "Who speaks?"}]),
    chat("chat-content-a-number", 400, messages=[said("user", 7)]),
    chat("chat-unicode", messages=[said("user", "Blåbær, 鲸鱼 и «киты» 🐳‍🌊 — ﷽ e\u0301 \u0000")]),
    chat(
        "chat-image-for-a-text-model",
        400,
        messages=[
            said(
                "user", [*words("What is this?"), {"type": "image_url", "image_url": {"url": _PNG}}]
            )
        ],
    ),
    chat("chat-prompt-over-context", 400, messages=[said("user", "harbour boats " * CONTEXT)]),
    chat("chat-prompt-near-context", messages=[said("user", "w" * (CONTEXT - 60))], max_tokens=8),
    chat("chat-twin-a", messages=[said("user", "The same question twice.")], max_tokens=20),
    chat("chat-twin-b", messages=[said("user", "The same question twice.")], max_tokens=20),
]

_POEM = [said("user", "Begin a poem"), said("assistant", "The boats are")]

TEMPLATES: list[Kind] = [
    chat("chat-ends-with-assistant", messages=_POEM),
    chat(
        "chat-prefill",
        messages=_POEM,
        add_generation_prompt=False,
        continue_final_message=True,
    ),
    chat(
        "chat-prefill-echoed",
        messages=_POEM,
        add_generation_prompt=False,
        continue_final_message=True,
        echo=True,
    ),
    chat(
        "chat-prefill-and-prompt",
        400,
        messages=_POEM,
        add_generation_prompt=True,
        continue_final_message=True,
    ),
    chat("chat-no-generation-prompt", add_generation_prompt=False),
    chat("chat-thinking-off", chat_template_kwargs={"enable_thinking": False}),
    chat("chat-template-variable", chat_template_kwargs={"style": "dry"}),
    chat("chat-template-variable-unknown", chat_template_kwargs={"colour": "red"}),
    chat("chat-template-variables-a-list", 400, chat_template_kwargs=["dry"]),
    chat(
        "chat-own-template", 400, chat_template="{% for m in messages %}{{ m.content }}{% endfor %}"
    ),
    chat("chat-effort-low", reasoning_effort="low"),
    chat("chat-effort-none", reasoning_effort="none"),
    chat("chat-effort-unknown", 400, reasoning_effort="heroic"),
    chat("chat-documents", documents=[{"title": "Tides", "text": "High at noon."}]),
    chat("chat-documents-a-text", 400, documents="High at noon."),
    chat("chat-special-tokens-added", add_special_tokens=True),
    chat("chat-truncated", truncate_prompt_tokens=9),
    chat("chat-truncated-left", truncate_prompt_tokens=9, truncation_side="left"),
    chat("chat-truncated-to-context", truncate_prompt_tokens=-1),
    chat("chat-truncated-beyond-context", 400, truncate_prompt_tokens=CONTEXT + 5),
]

SAMPLING: list[Kind] = [
    chat("chat-temperature-missing", text="any", temperature=ABSENT),
    chat("chat-temperature-null", temperature=None, top_k=1),
    chat("chat-temperature-text", temperature="0"),
    chat("chat-temperature-negative", 400, temperature=-0.5),
    chat("chat-temperature-two", text="any", temperature=2),
    chat("chat-temperature-three", 400, temperature=3),
    chat("chat-temperature-seeded", temperature=0.7, seed=5),
    chat("chat-seed-negative", temperature=0.7, seed=-5),
    chat("chat-seed-too-large", 400, seed=2**70),
    chat("chat-seed-a-word", 400, seed="lucky"),
    chat("chat-top-p", temperature=1, top_p=0.3, seed=6),
    chat("chat-top-p-zero", 400, temperature=1, top_p=0),
    chat("chat-top-p-over-one", 400, top_p=1.5),
    chat("chat-top-k-zero", top_k=0),
    chat("chat-top-k-one", temperature=1, top_k=1),
    chat("chat-top-k-minus-two", 400, top_k=-2),
    chat("chat-min-p", temperature=1, min_p=0.2, seed=7),
    chat("chat-min-p-over-one", 400, min_p=1.2),
    chat("chat-presence-penalty", presence_penalty=1.5),
    chat("chat-frequency-penalty", frequency_penalty=1.5),
    chat("chat-frequency-penalty-high", 400, frequency_penalty=2.5),
    chat("chat-repetition-penalty", repetition_penalty=1.3),
    chat("chat-repetition-penalty-zero", 400, repetition_penalty=0),
    chat("chat-three-greedy-answers", 400, n=3),
    chat("chat-three-answers-seeded", n=3, temperature=0.9, seed=8),
    chat("chat-three-answers-sampled", text="any", n=3, temperature=0.9),
    chat("chat-no-answers", 400, n=0),
    chat("chat-answers-null", n=None),
    chat("chat-logit-bias", max_tokens=4, logit_bias={"300": 100}),
    chat("chat-logit-bias-out-of-vocabulary", 400, logit_bias={"99999": 5}),
    chat("chat-logit-bias-a-word", 400, logit_bias={"three": 5}),
    chat("chat-end-forced", logit_bias={str(END): 100}),
    chat("chat-end-ignored", max_tokens=6, logit_bias={str(END): 100}, ignore_eos=True),
    chat("chat-end-shown", logit_bias={str(END): 100}, skip_special_tokens=False),
    chat("chat-min-tokens", min_tokens=5, logit_bias={str(END): 100}),
    chat("chat-min-tokens-over-max", 400, min_tokens=50),
    chat("chat-bad-words", bad_words=["the", " a"]),
    chat("chat-allowed-tokens", max_tokens=5, allowed_token_ids=[301, 302, 303]),
    chat("chat-allowed-tokens-none", 400, allowed_token_ids=[]),
    chat("chat-stop-text", max_tokens=40, stop="e"),
    chat("chat-stop-list", max_tokens=40, stop=["a", "o"]),
    chat("chat-stop-null", stop=None),
    chat("chat-stop-empty", 400, stop=""),
    chat("chat-stop-kept", max_tokens=40, stop=["a", "o"], include_stop_str_in_output=True),
    chat("chat-stop-tokens", max_tokens=40, stop_token_ids=_MANY_TOKENS),
    chat("chat-stop-a-number", 400, stop=4),
    chat("chat-spaces-between", spaces_between_special_tokens=False),
    chat("chat-beam-search", n=2, use_beam_search=True),
    chat(
        "chat-repetition-detected",
        max_tokens=60,
        repetition_detection={"max_pattern_size": 4, "min_pattern_size": 1, "min_count": 3},
    ),
]

LENGTHS: list[Kind] = [
    chat("chat-max-missing", max_tokens=ABSENT, stop_token_ids=_MANY_TOKENS),
    chat("chat-max-null", max_tokens=None, stop_token_ids=_MANY_TOKENS),
    chat("chat-max-one", max_tokens=1),
    chat("chat-max-zero", 400, max_tokens=0),
    chat("chat-max-negative", 400, max_tokens=-1),
    chat("chat-max-text", max_tokens="9"),
    chat("chat-max-fraction", 400, max_tokens=9.5),
    chat("chat-max-over-context", 400, max_tokens=4 * CONTEXT),
    chat("chat-max-to-the-context", stop_token_ids=_MANY_TOKENS, max_tokens=CONTEXT),
    chat("chat-max-completion", max_tokens=ABSENT, max_completion_tokens=5),
    chat("chat-max-both", max_tokens=20, max_completion_tokens=5),
    chat("chat-max-both-reversed", max_tokens=5, max_completion_tokens=20),
    chat("chat-max-new-tokens", max_tokens=6, max_new_tokens=3),
]

LOG_PROBABILITIES: list[Kind] = [
    chat("chat-logprobs", max_tokens=3, logprobs=True),
    chat("chat-logprobs-top-four", max_tokens=3, logprobs=True, top_logprobs=4),
    chat("chat-logprobs-top-zero", max_tokens=3, logprobs=True, top_logprobs=0),
    chat("chat-logprobs-false", max_tokens=3, logprobs=False),
    chat("chat-logprobs-top-only", 400, top_logprobs=2),
    chat("chat-logprobs-top-too-many", 400, logprobs=True, top_logprobs=90),
    chat("chat-logprobs-top-a-text", 400, logprobs=True, top_logprobs="2"),
    chat(
        "chat-logprobs-as-token-ids", max_tokens=3, logprobs=True, return_tokens_as_token_ids=True
    ),
    chat("chat-prompt-logprobs", max_tokens=2, prompt_logprobs=1),
    chat("chat-prompt-logprobs-zero", max_tokens=2, prompt_logprobs=0),
    chat("chat-prompt-logprobs-negative", 400, prompt_logprobs=-3),
    chat("chat-token-ids-returned", max_tokens=3, return_token_ids=True),
    chat("chat-prompt-text-returned", max_tokens=3, return_prompt_text=True),
]


def _schema(schema: object = ABSENT, **fields: object) -> dict[str, object]:
    inner = {"name": "person", **fields}
    if schema is not ABSENT:
        inner["schema"] = schema
    return {"type": "json_schema", "json_schema": inner}


FORMATS: list[Kind] = [
    chat("chat-format-text", response_format={"type": "text"}),
    chat("chat-format-object", max_tokens=20, response_format={"type": "json_object"}),
    chat("chat-format-schema", max_tokens=60, response_format=_schema(PERSON)),
    chat("chat-format-schema-strict", max_tokens=60, response_format=_schema(PERSON, strict=True)),
    chat("chat-format-schema-without-schema", 400, response_format=_schema()),
    chat("chat-format-schema-missing", 400, response_format={"type": "json_schema"}),
    chat("chat-format-schema-impossible", 400, response_format=_schema({"type": "colour"})),
    chat("chat-format-unknown", 400, response_format={"type": "poem"}),
    chat("chat-format-null", response_format=None),
    chat("chat-structured-regex", structured_outputs={"regex": "[A-F]{3}-[0-9]{2}"}),
    chat("chat-structured-json", max_tokens=60, structured_outputs={"json": PERSON}),
    chat("chat-structured-choice", structured_outputs={"choice": ["harbour", "library"]}),
    chat("chat-structured-grammar", structured_outputs={"grammar": 'root ::= "yes" | "no"'}),
    chat("chat-structured-two", 400, structured_outputs={"regex": "a+", "choice": ["a", "b"]}),
    chat("chat-structured-bad-regex", 400, structured_outputs={"regex": "(["}),
    chat("chat-structured-unknown", 400, structured_outputs={"rhyme": True}),
    chat("chat-guided-choice", guided_choice=["harbour", "library"]),
    chat("chat-guided-json", guided_json=PERSON),
]

OTHER_FIELDS: list[Kind] = [
    chat("chat-label", label="spam"),
    chat("chat-metadata", metadata={"split": "test", "row": "7"}),
    chat("chat-extra-body", extra_body={"top_k": 1}),
    chat("chat-timeout", timeout=30),
    chat("chat-openai-fields", user="ada", store=False, service_tier="auto", verbosity="low"),
    chat("chat-modalities", modalities=["text"], prediction=None, web_search_options=None),
    chat("chat-best-of", best_of=3),
    chat("chat-priority-zero", priority=0),
    chat("chat-priority", priority=4),
    chat("chat-priority-a-word", 400, priority="high"),
    chat("chat-cache-salt", cache_salt="pepper"),
    chat("chat-cache-salt-empty", 400, cache_salt=""),
    chat("chat-request-id", request_id="my-own-id"),
    chat("chat-session-id", session_id="evening"),
    chat("chat-extra-arguments", vllm_xargs={"colour": "red"}),
    chat("chat-stream", 400, stream=True),
    chat("chat-stream-null", stream=None, stream_options=None),
    chat("chat-stream-options-alone", 400, stream_options={"include_usage": True}),
    chat("chat-model-missing", model=ABSENT),
    chat("chat-model-null", model=None),
    chat("chat-model-empty", model=""),
    chat("chat-model-unknown", 404, model="gpt-large"),
    chat("chat-model-a-number", 400, model=4),
    chat("chat-thinking-budget", 400, thinking_token_budget=5),
]

CHAT_KINDS = [
    *MESSAGES,
    *TEMPLATES,
    *SAMPLING,
    *LENGTHS,
    *LOG_PROBABILITIES,
    *FORMATS,
    *OTHER_FIELDS,
]

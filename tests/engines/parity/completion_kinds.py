"""Completions of texts and token ids."""

from tests.engines.parity.chat_kinds import PERSON
from tests.engines.parity.kind import ABSENT, CONTEXT, Kind, completion, said
from tests.engines.parity.models import END

_PERSON_FORMAT = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}}

PROMPTS: list[Kind] = [
    completion("completion-plain"),
    completion("completion-list-of-one", prompt=["Only one text"]),
    completion("completion-list-of-two", prompt=["The first text", "The second text"], here=400),
    completion("completion-tokens", prompt=[1, 300, 310, 320, 330]),
    completion("completion-tokens-list-of-one", prompt=[[1, 300, 310, 320]]),
    completion("completion-tokens-out-of-vocabulary", 400, prompt=[1, 99999]),
    completion("completion-tokens-negative", 400, prompt=[1, -4]),
    completion("completion-tokens-none", 400, prompt=[]),
    completion("completion-empty", 400, prompt=""),
    completion("completion-empty-bare", 400, prompt="", add_special_tokens=False),
    completion("completion-null", 400, prompt=None),
    completion("completion-missing", 400, prompt=ABSENT),
    completion("completion-a-number", 400, prompt=12),
    completion("completion-mixed-list", 400, prompt=["text", 12]),
    completion("completion-messages", 400, prompt=ABSENT, messages=[said("user", "Hello")]),
    completion("completion-over-context", 400, prompt="harbour boats " * CONTEXT),
    completion("completion-without-special-tokens", add_special_tokens=False),
    completion("completion-begin-doubled", prompt="<s>Once more the boats came home"),
    completion("completion-unicode", prompt="Blåbær 鲸鱼 🐳 и"),
    completion("completion-truncated", truncate_prompt_tokens=7),
    completion("completion-truncated-right", truncate_prompt_tokens=7, truncation_side="right"),
    completion("completion-truncation-odd", 400, truncate_prompt_tokens=-7),
    completion("completion-suffix", 400, suffix=" and so it ends"),
    completion("completion-suffix-empty", 400, suffix=""),
]

SAMPLING: list[Kind] = [
    completion("completion-temperature-missing", text="any", temperature=ABSENT),
    completion("completion-top-k-one", temperature=ABSENT, top_k=1),
    completion("completion-seeded", temperature=0.8, seed=21),
    completion("completion-two-greedy-answers", 400, n=2),
    completion("completion-two-answers-seeded", n=2, temperature=0.8, seed=22),
    completion("completion-best-of-one", best_of=1),
    completion("completion-best-of-more", best_of=3),
    completion("completion-beam-search", n=2, use_beam_search=True),
    completion("completion-max-missing", max_tokens=ABSENT),
    completion("completion-max-null", max_tokens=None),
    completion("completion-max-zero", 400, max_tokens=0),
    completion("completion-max-over-context", 400, max_tokens=4 * CONTEXT),
    completion("completion-max-completion-tokens", max_completion_tokens=3),
    completion("completion-min-tokens", min_tokens=4, logit_bias={str(END): 100}),
    completion("completion-stop", max_tokens=40, stop=["\n", "a"]),
    completion("completion-stop-kept", max_tokens=40, stop="a", include_stop_str_in_output=True),
    completion("completion-repetition-penalty", repetition_penalty=1.3),
    completion("completion-top-p-over-one", 400, top_p=2),
    completion("completion-temperature-a-word", 400, temperature="warm"),
    completion("completion-answers-none", 400, n=0),
]

LOG_PROBABILITIES: list[Kind] = [
    completion("completion-logprobs-0", max_tokens=3, logprobs=0),
    completion("completion-logprobs-3", max_tokens=3, logprobs=3),
    completion("completion-logprobs-too-many", 400, logprobs=90),
    completion("completion-logprobs-negative", 400, logprobs=-4),
    completion("completion-logprobs-true", max_tokens=3, logprobs=True),
    completion("completion-echo", max_tokens=3, echo=True),
    completion("completion-echo-null", max_tokens=3, echo=None),
    completion("completion-echo-alone", max_tokens=0, echo=True),
    completion("completion-echo-logprobs-0", max_tokens=2, echo=True, logprobs=0),
    completion("completion-echo-logprobs-alone", max_tokens=0, echo=True, logprobs=1),
    completion("completion-prompt-logprobs", max_tokens=2, prompt_logprobs=1),
    completion("completion-token-ids-returned", max_tokens=3, return_token_ids=True),
    completion("completion-logprobs-as-token-ids", logprobs=1, return_tokens_as_token_ids=True),
]

OTHER_FIELDS: list[Kind] = [
    completion("completion-format-object", max_tokens=20, response_format={"type": "json_object"}),
    completion("completion-format-schema", max_tokens=60, response_format=_PERSON_FORMAT),
    completion("completion-structured-choice", structured_outputs={"choice": ["yes", "no"]}),
    completion("completion-label", label="spam"),
    completion("completion-user", user="ada", stream=False),
    completion("completion-stream", stream=True, here=400),
    completion("completion-priority", priority=2),
    completion("completion-cache-salt", cache_salt="pepper"),
    completion("completion-model-missing", model=ABSENT),
    completion("completion-model-unknown", 404, model="davinci"),
]

COMPLETION_KINDS = [*PROMPTS, *SAMPLING, *LOG_PROBABILITIES, *OTHER_FIELDS]

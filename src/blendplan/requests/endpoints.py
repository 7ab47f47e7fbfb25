"""Which endpoint of an engine's server a request is for, and the fields that endpoints know."""

from urllib.parse import urlsplit

from blendplan.printable import show

CHAT, COMPLETIONS, RESPONSES = "chat", "completions", "responses"
EMBEDDINGS, SCORE, RERANK = "embeddings", "score", "rerank"

# The longer endings first: every chat completion is at an address that ends in "completions".
_ENDPOINT_OF_PATH = {
    "/chat/completions": CHAT,
    "/completions": COMPLETIONS,
    "/embeddings": EMBEDDINGS,
    "/responses": RESPONSES,
    "/score": SCORE,
    "/rerank": RERANK,
}
PLANNED = (
    "/v1/chat/completions, /v1/completions, /v1/responses, /v1/embeddings, /v1/score and /v1/rerank"
)
# Endpoints whose requests end with their prefill.
WITHOUT_OUTPUT = frozenset([EMBEDDINGS, SCORE, RERANK])
# What a server generates for a completion that states no limit (OpenAI, vLLM and SGLang alike).
COMPLETION_TOKENS = 16

SOURCE_COLUMNS = "source_columns"
"""What a line holds of its source for those who read its answer; no engine sees it."""

REPEATS = "answers_also"
"""What a line holds of identical requests that get its answer; no engine sees it."""

# What a line may hold around its body.
_AROUND_NAMES = "custom_id id method url body output_tokens prompt_tokens prompt_token_ids"
_AROUND = frozenset((*_AROUND_NAMES.split(), SOURCE_COLUMNS, REPEATS))
# Fields that the servers of vLLM 0.32 and SGLang 0.5.23 know, of all endpoints together, and those
# of OpenAI's that they pass over.
_PARAMETER_NAMES = """
add_generation_prompt add_special_tokens allowed_token_ids audio background bad_words best_of
cache_salt chat_template chat_template_kwargs continue_final_message custom_logit_processor
custom_params data_1 data_2 data_parallel_rank dimensions documents ebnf echo ec_transfer_params
embed_dtype enable_response_messages encoding_format endianness extra_key frequency_penalty
function_call functions ignore_eos images_config include include_reasoning
include_stop_str_in_output input input_ids instruction instructions items json_schema
kv_transfer_params length_penalty logit_bias logprob_token_ids logprobs lora_path
max_completion_tokens max_dynamic_patch max_output_tokens max_tokens max_tokens_per_doc
max_tokens_per_query max_tool_calls media_io_kwargs messages metadata min_dynamic_patch min_p
min_tokens mm_payload mm_processor_kwargs modalities model n no_stop_trim padding
parallel_tool_calls prediction presence_penalty previous_input_messages previous_response_id
priority prompt prompt_cache_key prompt_cache_retention prompt_embeds prompt_logprobs queries
query reasoning reasoning_effort regex repetition_detection repetition_penalty request_id
response_format return_cached_tokens_details return_hidden_states return_meta_info
return_mm_kwargs return_prompt_text return_prompt_token_ids return_routed_experts return_token_ids
return_token_offsets return_tokens_as_token_ids rid routed_experts_prompt_start safety_identifier
seed separate_reasoning service_tier session_id session_params skip_special_tokens
spaces_between_special_tokens stop stop_regex stop_token_ids store stream stream_interval
stream_options stream_reasoning structured_outputs suffix task temperature text text_1 text_2
thinking thinking_token_budget tool_choice tools top_k top_logprobs top_n top_p
truncate_prompt_tokens truncation truncation_side use_activation use_audio_in_video
use_beam_search user verbosity video_config vllm_xargs watermark watermarking web_search_options
"""
_PARAMETERS = frozenset(_PARAMETER_NAMES.split())
# Names that other tools have for what these servers call otherwise.
OTHER_NAMES = {
    "max_new_tokens": 'write "max_tokens"',
    "max_length": 'write "max_tokens"',
    "num_predict": 'write "max_tokens"',
    "maxOutputTokens": 'write "max_tokens"',
    "sampling_params": 'write its fields beside "prompt"',
    "parameters": 'write its fields beside "prompt"',
    "extra_body": "write its fields into the body itself",
    "stop_sequences": 'write "stop"',
    "random_seed": 'write "seed"',
    "num_return_sequences": 'write "n"',
    "guided_json": 'write "structured_outputs": {"json": ...}',
    "guided_regex": 'write "structured_outputs": {"regex": ...}',
    "guided_choice": 'write "structured_outputs": {"choice": ...}',
    "guided_grammar": 'write "structured_outputs": {"grammar": ...}',
    "enable_thinking": 'write "chat_template_kwargs": {"enable_thinking": ...}',
}


def endpoint_of(url: object) -> str:
    """The endpoint that an address names: a path, or one with a host and a query around it.

    Raises:
        ValueError: it is none that can be planned; the message says so.
    """
    if isinstance(url, str):
        try:
            path = urlsplit(url).path.rstrip("/")
        except ValueError:  # such as half a bracket in the host
            path = ""
        for ending, endpoint in _ENDPOINT_OF_PATH.items():
            if path.endswith(ending):
                return endpoint
        if path.endswith("/messages"):
            raise ValueError(
                f'"url" is {show(url)}, of Anthropic\'s Messages API; write OpenAI batch lines'
            )
    raise ValueError(f'"url" is {show(url)}; only {PLANNED} can be planned')


def path_of(url: object) -> str:
    """The path on an engine's own server for an address, whatever stands before it.

    Raises:
        ValueError: as `endpoint_of`.
    """
    endpoint = endpoint_of(url)
    ending = next(path for path, known in _ENDPOINT_OF_PATH.items() if known == endpoint)
    return f"/v1{ending}"


def known_parameters() -> frozenset[str]:
    """Fields of bodies that any endpoint knows."""
    return _PARAMETERS


def is_known(name: str, *, in_body: bool) -> bool:
    """Whether any endpoint knows a field, or a line has it around its body."""
    return name in _PARAMETERS if in_body else name in _AROUND


def is_known_of_plain_line(name: str) -> bool:
    """The same of a line that is its own body."""
    return name in _PARAMETERS or name in _AROUND

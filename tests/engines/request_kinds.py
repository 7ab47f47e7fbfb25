"""Kinds of request, good and bad, that engines' servers take or refuse each in their way.

`kinds()` gives one body for each, by name; what a real server did with them is recorded by
`record_refusals.py` in `tests/data/refusals`.
"""

from typing import Any

TOOL = {
    "type": "function",
    "function": {
        "name": "find_flight",
        "description": "Looks for a flight",
        "parameters": {"type": "object", "properties": {"to": {"type": "string"}}},
    },
}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
USER = {"role": "user", "content": "Name a river"}

# Parameters that both endpoints know, or neither, each tried on both.
BOTH: dict[str, dict[str, Any]] = {
    "plain": {},
    "max_tokens_zero": {"max_tokens": 0},
    "max_tokens_negative": {"max_tokens": -1},
    "max_tokens_null": {"max_tokens": None},
    "max_tokens_text": {"max_tokens": "8"},
    "max_tokens_word": {"max_tokens": "many"},
    "max_tokens_whole_float": {"max_tokens": 8.0},
    "max_tokens_float": {"max_tokens": 8.5},
    "max_tokens_flag": {"max_tokens": True},
    "max_tokens_context": {"max_tokens": 256},
    "max_tokens_over_context": {"max_tokens": 257},
    "max_completion_tokens": {"max_completion_tokens": 3},
    "max_completion_tokens_zero": {"max_completion_tokens": 0},
    "max_completion_tokens_over_context": {"max_completion_tokens": 257},
    "min_tokens": {"min_tokens": 2},
    "min_tokens_above_max": {"min_tokens": 9},
    "min_tokens_negative": {"min_tokens": -1},
    "temperature_null": {"temperature": None},
    "temperature_two": {"temperature": 2},
    "temperature_above_two": {"temperature": 2.5},
    "temperature_negative": {"temperature": -0.5},
    "temperature_text": {"temperature": "0.5"},
    "temperature_word": {"temperature": "hot"},
    "temperature_flag": {"temperature": True},
    "top_p": {"top_p": 0.9, "temperature": 1},
    "top_p_zero": {"top_p": 0, "temperature": 1},
    "top_p_zero_greedy": {"top_p": 0},
    "top_p_above_one": {"top_p": 1.5, "temperature": 1},
    "top_k_zero": {"top_k": 0},
    "top_k_minus_one": {"top_k": -1},
    "top_k_minus_two": {"top_k": -2},
    "top_k_float": {"top_k": 1.5},
    "top_k_null": {"top_k": None},
    "min_p": {"min_p": 0.2, "temperature": 1},
    "min_p_above_one": {"min_p": 1.2, "temperature": 1},
    "min_p_negative": {"min_p": -0.2, "temperature": 1},
    "presence_penalty": {"presence_penalty": 1.5},
    "presence_penalty_high": {"presence_penalty": 2.5},
    "frequency_penalty_low": {"frequency_penalty": -2.5},
    "frequency_penalty_null": {"frequency_penalty": None},
    "repetition_penalty": {"repetition_penalty": 1.3},
    "repetition_penalty_zero": {"repetition_penalty": 0},
    "repetition_penalty_high": {"repetition_penalty": 2.5},
    "seed": {"seed": 11, "temperature": 1},
    "seed_negative": {"seed": -3, "temperature": 1},
    "seed_huge": {"seed": 2**64},
    "seed_text": {"seed": "eleven"},
    "n_two_greedy": {"n": 2},
    "n_two": {"n": 2, "temperature": 1},
    "n_zero": {"n": 0},
    "n_null": {"n": None},
    "n_above_running": {"n": 20, "temperature": 1},
    "n_huge": {"n": 20_000, "temperature": 1},
    "best_of": {"best_of": 2, "temperature": 1},
    "best_of_below_n": {"best_of": 1, "n": 2, "temperature": 1},
    "stop_text": {"stop": "x"},
    "stop_list": {"stop": ["x", "y"]},
    "stop_null": {"stop": None},
    "stop_empty_text": {"stop": ""},
    "stop_empty_in_list": {"stop": ["x", ""]},
    "stop_number": {"stop": 5},
    "stop_numbers": {"stop": [5]},
    "stop_many": {"stop": [f"s{i}" for i in range(200)]},
    "stop_token_ids": {"stop_token_ids": [5, 6]},
    "stop_token_ids_null": {"stop_token_ids": None},
    "stop_token_ids_number": {"stop_token_ids": 5},
    "stop_token_ids_beyond": {"stop_token_ids": [99_999]},
    "stop_token_ids_negative": {"stop_token_ids": [-1]},
    "logit_bias": {"logit_bias": {"300": 5}},
    "logit_bias_beyond": {"logit_bias": {"99999": 5}},
    "logit_bias_word": {"logit_bias": {"yes": 5}},
    "logit_bias_list": {"logit_bias": [300]},
    "logit_bias_text": {"logit_bias": {"300": "much"}},
    "logit_bias_big": {"logit_bias": {"300": 500}},
    "bad_words": {"bad_words": ["no"]},
    "bad_words_empty": {"bad_words": [""]},
    "bad_words_text": {"bad_words": "no"},
    "allowed_token_ids": {"allowed_token_ids": [300, 301]},
    "allowed_token_ids_empty": {"allowed_token_ids": []},
    "allowed_token_ids_beyond": {"allowed_token_ids": [99_999]},
    "stream": {"stream": True},
    "stream_null": {"stream": None},
    "stream_options": {"stream_options": {"include_usage": True}},
    "stream_word": {"stream": "yes please"},
    "ignore_eos": {"ignore_eos": True},
    "ignore_eos_null": {"ignore_eos": None},
    "ignore_eos_number": {"ignore_eos": 3},
    "skip_special_tokens_null": {"skip_special_tokens": None},
    "prompt_logprobs": {"prompt_logprobs": 1},
    "prompt_logprobs_negative": {"prompt_logprobs": -2},
    "prompt_logprobs_high": {"prompt_logprobs": 50},
    "prompt_logprobs_text": {"prompt_logprobs": "1"},
    "truncate_prompt_tokens": {"truncate_prompt_tokens": 3},
    "truncate_prompt_tokens_context": {"truncate_prompt_tokens": -1},
    "truncate_prompt_tokens_over_context": {"truncate_prompt_tokens": 300},
    "truncate_prompt_tokens_negative": {"truncate_prompt_tokens": -2},
    "priority_zero": {"priority": 0},
    "priority": {"priority": 5},
    "priority_text": {"priority": "high"},
    "user": {"user": "someone"},
    "user_number": {"user": 5},
    "label": {"label": "x", "timeout": 600, "extra_body": {"top_k": 1}},
    "metadata": {"metadata": {"a": "b"}},
    "store_tier": {"store": True, "service_tier": "flex"},
    "max_new_tokens": {"max_new_tokens": 5},
    "guided_json": {"guided_json": SCHEMA},
    "guided_choice": {"guided_choice": ["a", "b"]},
    "regex": {"regex": "[0-9]+"},
    "json_schema": {"json_schema": '{"type": "object"}'},
    "ebnf": {"ebnf": 'root ::= "a"'},
    "format_text": {"response_format": {"type": "text"}},
    "format_object": {"response_format": {"type": "json_object"}},
    "format_schema": {
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}
    },
    "format_schema_missing": {"response_format": {"type": "json_schema"}},
    "format_schema_empty": {
        "response_format": {"type": "json_schema", "json_schema": {"name": "s"}}
    },
    "format_schema_bad": {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "s", "schema": {"type": "objekt"}},
        }
    },
    "format_unknown": {"response_format": {"type": "yaml"}},
    "format_text_only": {"response_format": "json"},
    "structured_regex": {"structured_outputs": {"regex": "[0-9]+"}},
    "structured_choice": {"structured_outputs": {"choice": ["a", "b"]}},
    "structured_choice_empty": {"structured_outputs": {"choice": []}},
    "structured_two": {"structured_outputs": {"regex": "[0-9]+", "choice": ["a"]}},
    "structured_none": {"structured_outputs": {}},
    "structured_unknown": {"structured_outputs": {"yaml": "a"}},
    "structured_regex_bad": {"structured_outputs": {"regex": "[0-9"}},
    "structured_grammar_bad": {"structured_outputs": {"grammar": "???"}},
    "structured_and_format": {
        "structured_outputs": {"regex": "[0-9]+"},
        "response_format": {"type": "json_object"},
    },
    "cache_salt": {"cache_salt": "pepper"},
    "cache_salt_empty": {"cache_salt": ""},
    "request_id": {"request_id": "mine"},
    "rid": {"rid": "mine"},
    "other_model": {"model": "somebody/else"},
    "adapter_model": {"model": "tiny:adapter"},
    "no_model": {"model": None},
    "model_number": {"model": 4},
    "model_empty": {"model": ""},
    "use_beam_search": {"use_beam_search": True, "n": 2},
    "thinking_token_budget": {"thinking_token_budget": 5},
    "vllm_xargs": {"vllm_xargs": {"a": 1}},
    "kv_transfer_params": {"kv_transfer_params": {}},
    "lora_path": {"lora_path": "adapter"},
    "return_token_ids": {"return_token_ids": True},
    "return_hidden_states": {"return_hidden_states": True},
    "custom_logit_processor": {"custom_logit_processor": "x"},
    "add_special_tokens_word": {"add_special_tokens": "maybe"},
    "min_tokens_null": {"min_tokens": None},
    "length_penalty": {"length_penalty": 1.0},
    "echo_flag": {"echo": True},
    "echo_null": {"echo": None},
}

CHAT: dict[str, dict[str, Any]] = {
    "logprobs": {"logprobs": True},
    "logprobs_null": {"logprobs": None},
    "logprobs_number": {"logprobs": 5},
    "top_logprobs": {"logprobs": True, "top_logprobs": 2},
    "top_logprobs_alone": {"top_logprobs": 2},
    "top_logprobs_zero_alone": {"top_logprobs": 0},
    "top_logprobs_null": {"top_logprobs": None},
    "top_logprobs_text": {"logprobs": True, "top_logprobs": "2"},
    "top_logprobs_20": {"logprobs": True, "top_logprobs": 20},
    "top_logprobs_21": {"logprobs": True, "top_logprobs": 21},
    "top_logprobs_all": {"logprobs": True, "top_logprobs": -1},
    "top_logprobs_negative": {"logprobs": True, "top_logprobs": -2},
    "max_both": {"max_tokens": 8, "max_completion_tokens": 3},
    "tools": {"tools": [TOOL]},
    "tools_empty": {"tools": []},
    "tools_null": {"tools": None},
    "tools_text": {"tools": "find_flight"},
    "tools_nameless": {"tools": [{"type": "function", "function": {}}]},
    "tools_other_type": {"tools": [{"type": "web_search"}]},
    "tools_bad_schema": {
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "objekt"}}}]
    },
    "tool_choice_auto": {"tools": [TOOL], "tool_choice": "auto"},
    "tool_choice_none": {"tools": [TOOL], "tool_choice": "none"},
    "tool_choice_required": {"tools": [TOOL], "tool_choice": "required", "max_tokens": 60},
    "tool_choice_named": {
        "tools": [TOOL],
        "tool_choice": {"type": "function", "function": {"name": "find_flight"}},
        "max_tokens": 40,
    },
    "tool_choice_other_name": {
        "tools": [TOOL],
        "tool_choice": {"type": "function", "function": {"name": "book_flight"}},
    },
    "tool_choice_nameless": {"tools": [TOOL], "tool_choice": {"type": "function"}},
    "tool_choice_alone_auto": {"tool_choice": "auto"},
    "tool_choice_alone_none": {"tool_choice": "none"},
    "tool_choice_alone_required": {"tool_choice": "required"},
    "tool_choice_null": {"tools": [TOOL], "tool_choice": None},
    "tool_choice_any": {"tools": [TOOL], "tool_choice": "any"},
    "tool_choice_required_and_format": {
        "tools": [TOOL],
        "tool_choice": "required",
        "response_format": {"type": "json_object"},
    },
    "parallel_tool_calls": {"tools": [TOOL], "tool_choice": "none", "parallel_tool_calls": False},
    "functions_old": {"functions": [TOOL["function"]], "function_call": "auto"},
    "messages_empty": {"messages": []},
    "messages_text": {"messages": "Name a river"},
    "messages_missing": {"messages": None},
    "role_missing": {"messages": [{"content": "Hi"}]},
    "role_unknown": {"messages": [{"role": "robot", "content": "Hi"}]},
    "role_number": {"messages": [{"role": 3, "content": "Hi"}]},
    "role_developer": {"messages": [{"role": "developer", "content": "Be brief"}, USER]},
    "content_missing": {"messages": [{"role": "user"}]},
    "content_null": {"messages": [{"role": "user", "content": None}]},
    "content_number": {"messages": [{"role": "user", "content": 7}]},
    "content_object": {"messages": [{"role": "user", "content": {"type": "text", "text": "a"}}]},
    "content_parts": {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Name a river"}]}]
    },
    "content_texts": {"messages": [{"role": "user", "content": ["Name", "a river"]}]},
    "content_part_unknown": {
        "messages": [{"role": "user", "content": [{"type": "smell", "smell": "a"}]}]
    },
    "content_part_untyped": {"messages": [{"role": "user", "content": [{"text": "a"}]}]},
    "content_image": {"messages": [{"role": "user", "content": [IMAGE]}]},
    "assistant_null": {"messages": [USER, {"role": "assistant", "content": None}, USER]},
    "assistant_tool_calls": {
        "messages": [
            USER,
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "1",
                        "type": "function",
                        "function": {"name": "find_flight", "arguments": '{"to": "Oslo"}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "1", "content": "none"},
        ]
    },
    "assistant_tool_calls_broken": {
        "messages": [
            USER,
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "1",
                        "type": "function",
                        "function": {"name": "find_flight", "arguments": '{"to": '},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "1", "content": "none"},
        ]
    },
    "assistant_tool_calls_empty": {
        "messages": [USER, {"role": "assistant", "content": "a", "tool_calls": []}, USER]
    },
    "tool_without_id": {"messages": [USER, {"role": "tool", "content": "none"}]},
    "message_text": {"messages": ["Name a river"]},
    "message_extra": {"messages": [{"role": "user", "content": "Hi", "weight": 1}]},
    "continue_final": {
        "messages": [USER, {"role": "assistant", "content": "The"}],
        "continue_final_message": True,
        "add_generation_prompt": False,
    },
    "continue_final_only": {
        "messages": [USER, {"role": "assistant", "content": "The"}],
        "continue_final_message": True,
    },
    "continue_and_generate": {
        "messages": [USER, {"role": "assistant", "content": "The"}],
        "continue_final_message": True,
        "add_generation_prompt": True,
    },
    "chat_template": {"chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}"},
    "chat_template_kwargs": {"chat_template_kwargs": {"enable_thinking": False}},
    "chat_template_kwargs_text": {"chat_template_kwargs": "no"},
    "chat_template_in_kwargs": {"chat_template_kwargs": {"chat_template": "{{ messages }}"}},
    "documents": {"documents": [{"title": "a", "text": "b"}]},
    "documents_text": {"documents": "a"},
    "reasoning_effort": {"reasoning_effort": "low"},
    "reasoning_effort_none": {"reasoning_effort": "none"},
    "reasoning_effort_other": {"reasoning_effort": "extreme"},
    "reasoning_effort_number": {"reasoning_effort": 0.5},
    "include_reasoning": {"include_reasoning": False},
    "prompt_too": {"prompt": "Hi"},
    "structured_and_tools": {
        "structured_outputs": {"regex": "[0-9]+"},
        "tools": [TOOL],
        "tool_choice": {"type": "function", "function": {"name": "find_flight"}},
    },
    "logprob_token_ids_alone": {"logprob_token_ids": [300]},
    "logprob_token_ids": {"logprobs": True, "logprob_token_ids": [300]},
    "over_context": {"messages": [{"role": "user", "content": "river " * 400}]},
    "over_context_truncated": {
        "messages": [{"role": "user", "content": "river " * 400}],
        "truncate_prompt_tokens": 20,
    },
}

COMPLETION: dict[str, dict[str, Any]] = {
    "logprobs": {"logprobs": 2},
    "logprobs_zero": {"logprobs": 0},
    "logprobs_flag": {"logprobs": True},
    "logprobs_20": {"logprobs": 20},
    "logprobs_21": {"logprobs": 21},
    "logprobs_all": {"logprobs": -1},
    "logprobs_negative": {"logprobs": -2},
    "logprobs_text": {"logprobs": "2"},
    "echo_logprobs": {"echo": True, "logprobs": 1},
    "echo_without_output": {"echo": True, "max_tokens": 0},
    "suffix": {"suffix": "the end"},
    "prompt_empty": {"prompt": ""},
    "prompt_null": {"prompt": None},
    "prompt_number": {"prompt": 5},
    "prompt_list_empty": {"prompt": []},
    "prompt_list_of_empty": {"prompt": [""]},
    "prompt_list_of_one": {"prompt": ["Name a river"]},
    "prompt_ids": {"prompt": [1, 300, 301]},
    "prompt_ids_list_of_one": {"prompt": [[1, 300, 301]]},
    "prompt_ids_beyond": {"prompt": [1, 99_999]},
    "prompt_ids_negative": {"prompt": [1, -5]},
    "prompt_ids_float": {"prompt": [1, 2.5]},
    "messages_too": {"messages": [USER]},
    "over_context": {"prompt": [300] * 257},
    "at_context": {"prompt": [300] * 256},
    "below_context": {"prompt": [300] * 255},
    "near_context": {"prompt": [300] * 250, "max_tokens": 16},
    "over_context_truncated": {"prompt": [300] * 300, "truncate_prompt_tokens": 20},
    "logprob_token_ids": {"logprobs": 1, "logprob_token_ids": [300]},
    "tools_ignored": {"tools": [TOOL], "tool_choice": "required"},
    "default_cap": {"max_tokens": None, "prompt": [300] * 8},
}


def kinds() -> dict[str, tuple[str, dict[str, Any]]]:
    """(endpoint, body) of each kind, by name; a value of None in the base leaves the field out."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    common = {"model": "tiny", "temperature": 0, "max_tokens": 4}
    chat: dict[str, Any] = {"messages": [USER]} | common
    completion: dict[str, Any] = {"prompt": "Name a river"} | common
    for name, changes in (BOTH | CHAT).items():
        found[f"chat {name}"] = ("/v1/chat/completions", chat | changes)
    for name, changes in (BOTH | COMPLETION).items():
        found[f"completion {name}"] = ("/v1/completions", completion | changes)
    del found["completion max_tokens_null"][1]["max_tokens"]
    del found["chat no_model"][1]["model"]
    return found

"""A replay beside vLLM's own servers, on many kinds of request.

`kinds` names the requests, `models` makes the tiny models that answer them, `reference` has vLLM's
batch runner and API server answer them, and `compare` says where two answers differ.
"""

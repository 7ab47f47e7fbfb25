"""What an engine's server would do with requests, said before any engine runs.

In: requests with their bodies, the engine's name, the arguments it will be started with. Out: which
of them its server would refuse, with status and reason, the cap on each output as the server sets
it, and remarks on fields that it passes over. Where the engine is installed, its own request models
decide, in a process of their own; else a table of fields (``vllm.toml``, ``sglang.toml``) and a few
rules that stand beside it. Knows nothing of plans.
"""

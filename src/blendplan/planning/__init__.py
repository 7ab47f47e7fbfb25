"""Planning: from requests to a plan, or to a comparison of policies.

`planner.plan` is the main path; it reads like the list of its stages. Everything below this room
is put together here; nothing here runs an engine.
"""

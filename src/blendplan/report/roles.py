"""Which policies are plans, and which are what an engine does by itself."""

_UNPLANNED = ("fcfs", "random", "dfs")


def is_planned(policy: str) -> bool:
    """Whether the policy is more than an order that engines follow without a plan."""
    return policy not in _UNPLANNED

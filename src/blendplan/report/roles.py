"""Which policies are plans, and which are orders that an engine follows by itself."""

ORDERS = {"fcfs": "input", "random": "random", "dfs": "depth-first"}


def is_planned(policy: str) -> bool:
    """Whether the policy is more than an order that engines follow without a plan."""
    return policy not in ORDERS

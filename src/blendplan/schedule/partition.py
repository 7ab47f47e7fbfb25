"""The paper's split of the KV cache between two kinds of requests (5.3, algorithm 3)."""

from blendplan.kernel import kernel


@kernel
def memory_partition(
    kv_tokens: float, root_density: float, left_density: float, right_density: float
) -> tuple[float, float]:
    """KV tokens for the compute-heavy (left) and the memory-heavy (right) scanner.

    Solves M_L + M_R = M and M_L rho_L + M_R rho_R = M rho_root, so that the requests resident
    together have the density of the whole workload. Where no mix of the two has that density, the
    side that is nearer gets all of M; two equal densities share it.

    Args:
        kv_tokens: M, in any unit of memory.
        root_density: rho_root, compute seconds per memory second of the whole workload.
        left_density, right_density: the same for the two current requests, left >= right.

    Returns:
        (M_L, M_R) in the unit of ``kv_tokens``.
    """
    if left_density == right_density:
        return kv_tokens / 2, kv_tokens / 2
    share = (root_density - right_density) / (left_density - right_density)
    left = kv_tokens * min(1.0, max(0.0, share))
    return left, kv_tokens - left


@kernel
def prefill_budget_tokens(
    side_tokens: float, prompt_tokens: float, new_prompt_tokens: float, output_tokens: float
) -> float:
    """Prefill tokens per step that keep one side of the partition full.

    A side of M tokens holds N = M / (p + d/2) requests on average; one in d of them finishes per
    step and is replaced, so C = N p / d (5.3). Only tokens that miss the prefix cache are
    computed, so the p of the flow is the new prompt tokens.

    Args:
        side_tokens: M of this side in KV tokens.
        prompt_tokens: KV tokens that a request of this side holds for its prompt.
        new_prompt_tokens: prompt tokens that it must compute.
        output_tokens: d, expected.
    """
    return side_tokens / (prompt_tokens + output_tokens / 2) * new_prompt_tokens / output_tokens

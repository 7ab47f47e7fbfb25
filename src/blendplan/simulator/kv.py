"""The KV cache as the engine sees it: `KvCache` where all layers keep all tokens, which counts
blocks, and `GroupedCache` for every other layout, which has a table of them.
"""

from blendplan.hardware.engine_limits import EngineLimits
from blendplan.hardware.kv_layout import KvLayout
from blendplan.kernels.by_record import by_record
from blendplan.kernels.kernel import kernel
from blendplan.simulator import grouped_steps, kv_cache
from blendplan.simulator.grouped_cache import GroupedCache, empty_grouped_cache
from blendplan.simulator.kv_cache import KvCache, empty_cache
from blendplan.simulator.workload import Workload

AnyCache = KvCache | GroupedCache

new_step = by_record({KvCache: kv_cache.new_step, GroupedCache: grouped_steps.new_step})
look_up = by_record({KvCache: kv_cache.look_up, GroupedCache: grouped_steps.look_up})
cut = by_record({KvCache: kv_cache.cut, GroupedCache: grouped_steps.cut})
enter = by_record({KvCache: kv_cache.enter, GroupedCache: grouped_steps.enter})
lacking = by_record({KvCache: kv_cache.lacking, GroupedCache: grouped_steps.lacking})
supply = by_record({KvCache: kv_cache.supply, GroupedCache: grouped_steps.supply})
release = by_record({KvCache: kv_cache.release, GroupedCache: grouped_steps.release})


def cache_for(workload: Workload, limits: EngineLimits, layout: KvLayout | None) -> AnyCache:
    """An empty cache for the requests of a workload.

    Args:
        workload: the requests.
        limits: of the engine.
        layout: of its KV cache; None where all layers keep all tokens.
    """
    chains = workload.chains
    if layout is None or layout.plain:
        return empty_cache(
            limits.kv_blocks,
            limits.block_size,
            chains.chain_ids,
            chains.chain_offsets,
            chains.count,
        )
    return empty_grouped_cache(
        layout,
        limits.kv_blocks,
        workload.prompt_tokens,
        chains.chain_ids,
        chains.chain_offsets,
        chains.count,
        seats=max(1, min(limits.max_num_seqs, len(workload))),
        most_tokens=workload.longest_tokens(),
        async_scheduling=limits.async_scheduling,
    )


@kernel
def used_tokens(cache: AnyCache) -> int:
    """Tokens of the blocks that running requests hold: slots, as of `KvLayout`."""
    return (cache.blocks - cache.now[0].free) * cache.block_size

"""`prepare`: the stages of planning before any policy, and what they find."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from blendplan.cost.machine import Machine
from blendplan.errors import BlendplanError
from blendplan.lengths.features import request_features
from blendplan.lengths.plausible import numbers_of, plausible_outputs
from blendplan.lengths.predicted import Lengths
from blendplan.planning.bound import LeastPrefill, least_prefill
from blendplan.planning.demand import demand
from blendplan.policy.holding import holding_of
from blendplan.policy.known import PolicyInput, step_prices
from blendplan.requests.columns import Requests
from blendplan.requests.context import check_context, within_context
from blendplan.requests.fitting import check_fits
from blendplan.requests.sequences import Sequences
from blendplan.simulator.workload import Workload
from blendplan.tree.annotate import annotate
from blendplan.tree.blocks import block_chains
from blendplan.tree.build import build_tree
from blendplan.tree.families import sharing_families
from blendplan.tree.prefix_tree import PrefixTree
from blendplan.tree.sharing import divided_prompt_tokens, optimal_sharing
from blendplan.tree.splitting.split import split_tree

Progress = Callable[[str, int, int], None]
"""Called with the stage's name, and how much of it is done of how much."""


@dataclass(frozen=True)
class Prepared:
    """Everything about a request set that does not depend on the policy.

    Attributes:
        requests: the requests.
        sequences: what an engine runs of them, s in all; all columns below are of sequences. Where
            every request asks for one answer, a sequence is a request.
        request_tree: prefix tree of the requests.
        tree: that of the sequences.
        lengths: predicted output lengths.
        expected: what is known of each sequence when a policy is made.
        prefill: prefill work that no schedule avoids.
        sharing: the best possible prefix sharing ratio.
        workload: what the simulated engine sees, with output lengths as predicted where they are
            known, and elsewhere as they may well turn out.
        seed: of the draws of those.
    """

    requests: Requests
    sequences: Sequences
    request_tree: PrefixTree
    tree: PrefixTree
    lengths: Lengths
    expected: PolicyInput
    prefill: LeastPrefill
    sharing: float
    workload: Workload
    seed: int

    @cached_property
    def features(self) -> NDArray[np.float32]:
        """What is known of each sequence before it runs, as numbers; see `request_features`."""
        return self.sequences.spread(request_features(self.requests, self.request_tree))

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Number of each sequence by which its length is drawn; int64 [s]."""
        spread = self.sequences.spread(self.requests.source_row)
        return numbers_of(spread, self.sequences.answer)


def prepare(
    requests: Requests,
    target: Machine,
    *,
    lengths: str | Lengths = "auto",
    request_tree: PrefixTree | None = None,
    preserve_sharing: float = 0.99,
    seed: int = 0,
    progress: Progress | None = None,
) -> Prepared:
    """The stages before any policy: tree, output lengths, resource demand, sorted and split tree.

    Args: as of `plan`; lengths may also be predicted already, for each request, and the prefix tree
    of the requests be at hand.
    """
    report = progress or (lambda stage, done, total: None)
    n = len(requests)
    if n == 0:
        source = requests.source or "the request set"
        raise BlendplanError(f"{source} holds no requests; give at least one to plan")
    check_context(requests, target.max_model_len)
    requests = within_context(requests, target.max_model_len)
    check_fits(requests, target.longest_request)
    report("prefix tree", 0, n)
    if request_tree is None:
        request_tree = build_tree(requests)
    report("output lengths", 0, n)
    asked = demand(requests, target, lengths, request_tree)
    sequences, tree, predicted = asked.sequences, asked.tree, asked.lengths
    report("sorting by density", 0, n)
    outputs = _float(predicted.mean)
    arranged = split_tree(
        tree,
        asked.prompt_tokens,
        asked.compute_s,
        asked.memory_s,
        preserve=preserve_sharing,
        output_tokens=outputs,
    )
    root = annotate(
        tree, asked.prompt_tokens, asked.compute_s, asked.memory_s, output_tokens=outputs
    )
    new_prompt_tokens = divided_prompt_tokens(arranged)
    shared_compute_s, _ = target.costs.demand(new_prompt_tokens, predicted.mean)
    expected = PolicyInput(
        depth_first=tree.order,
        family=sharing_families(tree),
        by_density=arranged.order,
        prompt_tokens=_float(asked.prompt_tokens),
        new_prompt_tokens=new_prompt_tokens,
        outcomes=predicted.outcomes.astype(np.float64),
        density=shared_compute_s / asked.memory_s,
        root_density=float(root.density[0]),
        prices=step_prices(target.table),
        request=sequences.request,
        reach=target.table.reach,
        holding=holding_of(target.layout),
    )
    workload = Workload(
        asked.prompt_tokens,
        plausible_outputs(expected.outcomes, asked.numbers, seed),
        block_chains(tree, requests, target.layout.hash_tokens),
    )
    return Prepared(
        requests,
        sequences,
        request_tree,
        tree,
        predicted,
        expected,
        least_prefill(tree, target.table.reach),
        optimal_sharing(tree),
        workload,
        seed,
    )


def _float(values: NDArray[np.float32] | NDArray[np.int32]) -> NDArray[np.float64]:
    return values.astype(np.float64)

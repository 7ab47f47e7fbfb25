"""`demand`: what requests ask of a machine: tree, output lengths, compute and memory time."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from blendplan.cost.machine import Machine
from blendplan.lengths.plausible import numbers_of
from blendplan.lengths.predict import predict_lengths
from blendplan.lengths.predicted import Lengths
from blendplan.requests.columns import Requests
from blendplan.requests.sequences import Sequences, sequences_of
from blendplan.tree.build import build_tree
from blendplan.tree.prefix_tree import PrefixTree
from blendplan.tree.repeated import repeat_requests
from blendplan.tree.sharing import divided_prompt_tokens


@dataclass(frozen=True)
class Demand:
    """What n requests and their s sequences ask of a machine.

    Attributes:
        requests: the requests, which all fit the machine.
        sequences: what an engine runs of them; all columns below are of sequences.
        request_tree: prefix tree of the requests.
        tree: that of the sequences.
        lengths: predicted output lengths.
        prompt_tokens: int32 [s].
        compute_s, memory_s: of each sequence by itself; float64 [s].
    """

    requests: Requests
    sequences: Sequences
    request_tree: PrefixTree
    tree: PrefixTree
    lengths: Lengths
    prompt_tokens: NDArray[np.int32]
    compute_s: NDArray[np.float64]
    memory_s: NDArray[np.float64]

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Number of each sequence by which its length is drawn; int64 [s]."""
        return numbers_of(self.sequences.spread(self.requests.source_row), self.sequences.answer)


def demand(
    requests: Requests,
    target: Machine,
    lengths: str | Lengths,
    request_tree: PrefixTree | None = None,
) -> Demand:
    """Predict output lengths, and price every sequence by itself.

    Args:
        requests: n requests, all of which fit the machine.
        target: the machine.
        lengths: a method of `predict_lengths`, or the length of each request.
        request_tree: of the requests, where it is at hand.
    """
    sequences = sequences_of(requests)
    if request_tree is None:
        request_tree = build_tree(requests)
    predicted = lengths
    if not isinstance(predicted, Lengths):
        predicted = predict_lengths(requests, request_tree, predicted)
    # No longer than what KV cache and context have room for after the prompt.
    room = target.room_for_output(requests.prompt_tokens.astype(np.int64))
    predicted = predicted.within(0.0, np.maximum(1, room))
    request = sequences.request
    if request is not None:
        predicted = replace(predicted.take(request), total=predicted.total)
    prompt_tokens = sequences.spread(requests.prompt_tokens)
    compute_s, memory_s = target.costs.demand(prompt_tokens, predicted.mean)
    return Demand(
        requests,
        sequences,
        request_tree,
        repeat_requests(request_tree, sequences),
        predicted,
        prompt_tokens,
        compute_s,
        memory_s,
    )


def shared_demand(
    target: Machine,
    tree: PrefixTree,
    sequences: Sequences,
    prompt_tokens: NDArray[np.int32],
    output_tokens: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute and memory time of each request with all of its answers, as replicas divide them.

    The compute of a shared prefix is divided among those that share it.

    Args:
        target: the machine.
        tree: of the s sequences.
        sequences: of n requests.
        prompt_tokens, output_tokens: of the sequences, the latter as expected; [s].

    Returns:
        Seconds, float64 [n] each.
    """
    compute_s, _ = target.costs.demand(divided_prompt_tokens(tree), output_tokens)
    _, memory_s = target.costs.demand(prompt_tokens, output_tokens)
    # A request goes to one engine with all of its answers.
    first = sequences.first()
    return np.add.reduceat(compute_s, first), np.add.reduceat(memory_s, first)

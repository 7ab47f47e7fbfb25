"""Second pass: what the requests of each range cost, and what of it no schedule avoids."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from blendplan.lengths.plausible import plausible_outputs
from blendplan.planning.bound import LeastWork, least_prefill, least_work
from blendplan.planning.demand import demand, shared_demand
from blendplan.planning.large.job import Job
from blendplan.planning.large.places import rows_over_all
from blendplan.planning.large.ranges import Range, load_range
from blendplan.policy.holding import holding_of
from blendplan.requests.columns import Requests
from blendplan.tree.annotate import annotate
from blendplan.tree.build import tree_of
from blendplan.tree.order import sorted_order
from blendplan.tree.sharing import prefix_tokens_unique


@dataclass(frozen=True)
class Corpus:
    """What all ranges have in common.

    Attributes:
        file_rows: rows of each file, by which places become rows.
        estimated: whether prompts are estimates.
    """

    file_rows: Sequence[int]
    estimated: bool


@dataclass(frozen=True)
class Priced:
    """What a range with any requests comes to.

    Attributes:
        columns: a file with, for each request in the prompts' order, its number in the range, the
            tokens it shares with the one before, its prompt tokens, and its compute and memory
            seconds as replicas divide them.
        requests, sequences: how many there are.
        compute_s, memory_s: sums of these columns.
        compute_left_s, whole_memory_s: what the density of the whole is the ratio of.
        prompt_tokens, unique_tokens: of all sequences, and with shared prefixes counted once.
        work: what no schedule of these avoids.
        longest_prompt: prompt tokens of the request with the longest output.
        first, last: the prompts at both ends, int32.
        end_outputs: output tokens of all answers to the first and to the last.
    """

    columns: Path
    requests: int
    sequences: int
    compute_s: float
    memory_s: float
    compute_left_s: float
    whole_memory_s: float
    prompt_tokens: int
    unique_tokens: int
    work: LeastWork
    longest_prompt: int
    first: NDArray[np.int32]
    last: NDArray[np.int32]
    end_outputs: tuple[int, int]


def price_range(job: Job, corpus: Corpus, one: Range) -> Priced | None:
    """Sort and price the requests of a range; None where all of them are dropped."""
    requests = rows_of(one, corpus)
    if not len(requests):
        return None
    order, shared = sorted_order(requests.token_ids, requests.offsets)
    lengths = np.diff(requests.offsets)[order].astype(np.int32)
    asked = demand(requests, job.target, job.how.lengths, tree_of(order, shared, lengths))
    sequences, tree = asked.sequences, asked.tree
    outcomes = asked.lengths.outcomes.astype(np.float64)
    compute_s, memory_s = shared_demand(
        job.target, tree, sequences, asked.prompt_tokens, outcomes.mean(axis=1)
    )
    path = job.folder / f"priced-{one.number:06d}.npz"
    np.savez(
        path,
        order=order.astype(np.int32),
        shared=shared,
        lengths=lengths,
        compute_s=compute_s[order],
        memory_s=memory_s[order],
    )
    outputs = plausible_outputs(outcomes, asked.numbers, job.how.seed).astype(np.int64)
    prompts = asked.prompt_tokens.astype(np.int64)
    root = annotate(
        tree,
        asked.prompt_tokens,
        asked.compute_s,
        asked.memory_s,
        output_tokens=asked.lengths.mean.astype(np.float64),
    )
    ends = tuple(int(outputs[sequences.of(order[[end]])].sum()) for end in (0, -1))
    return Priced(
        columns=path,
        requests=len(requests),
        sequences=len(sequences),
        compute_s=float(compute_s.sum()),
        memory_s=float(memory_s.sum()),
        compute_left_s=float(root.compute_s[0] * (1.0 - root.sharing[0])),
        whole_memory_s=float(root.memory_s[0]),
        prompt_tokens=int(prompts.sum()),
        unique_tokens=prefix_tokens_unique(tree),
        work=least_work(
            prompts,
            outputs,
            least_prefill(tree, job.target.table.reach),
            reach=job.target.table.reach,
            holding=holding_of(job.target.layout),
        ),
        longest_prompt=int(prompts[np.argmax(outputs)]),
        first=requests.prompt(int(order[0])).copy(),
        last=requests.prompt(int(order[-1])).copy(),
        end_outputs=(ends[0], ends[1]),
    )


def rows_of(one: Range, corpus: Corpus) -> Requests:
    """The requests of a range with their rows over all files."""
    requests = load_range(one, corpus.estimated)
    return replace(requests, source_row=rows_over_all(requests.source_row, corpus.file_rows))


def common_tokens(one: NDArray[np.int32], other: NDArray[np.int32]) -> int:
    """Leading tokens that two prompts share."""
    most = min(len(one), len(other))
    differ = np.flatnonzero(one[:most] != other[:most])
    return int(differ[0]) if len(differ) else most

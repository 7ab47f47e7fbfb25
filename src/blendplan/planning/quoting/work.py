"""`offers_of`: offers of many combinations, made in several processes from one copy of the data."""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType

from blendplan.errors import BlendplanError
from blendplan.lengths.predict import predict_lengths
from blendplan.planning.large.tasks import LocalTasks
from blendplan.planning.prepare import Progress
from blendplan.planning.quoting.combinations import Combination, Unfit, lacking_cache
from blendplan.planning.quoting.offer import Ground, How, Offer, make_offer
from blendplan.requests.columns import Requests
from blendplan.requests.context import check_context, within_context
from blendplan.tree.build import build_tree
from blendplan.tree.prefix_tree import PrefixTree


class Grounds:
    """The requests as each model's context allows them, in files that processes read.

    Parameters:
        requests: all of them.
        lengths: a method of `predict_lengths`.

    Use as a context manager; the files are gone at its end.
    """

    def __init__(self, requests: Requests, lengths: str) -> None:
        # An engine's text is nothing to plan by.
        self._requests = replace(requests, bodies=None)
        self._lengths = lengths
        self._tree: PrefixTree | None = None
        self._made: dict[int, tuple[Path, Requests] | str] = {}

    def __enter__(self) -> "Grounds":
        self._folder = TemporaryDirectory(prefix="blendplan-quote-")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _ground.cache_clear()
        self._folder.cleanup()

    def fitting(self, combinations: Sequence[Combination]) -> tuple[list[Combination], list[Unfit]]:
        """Combinations that can run every request, and why the others cannot.

        Raises:
            BlendplanError: output lengths that cannot be predicted.
        """
        fitting, unfit = [], []
        for one in combinations:
            made = self._of(one.target.max_model_len)
            lacking = Unfit({}, made) if isinstance(made, str) else None
            if not isinstance(made, str):
                lacking = lacking_cache(made[1], one.target)
            if lacking is None:
                fitting.append(one)
            else:
                unfit.append(replace(lacking, settings=one.settings))
        return fitting, unfit

    def path(self, one: Combination) -> Path:
        """The file with what is planned for a combination that fits."""
        made = self._of(one.target.max_model_len)
        assert not isinstance(made, str), "it does not fit"
        return made[0]

    def _of(self, max_model_len: int) -> tuple[Path, Requests] | str:
        """File and requests for a context, or why they do not fit it."""
        if max_model_len not in self._made:
            self._made[max_model_len] = self._make(max_model_len)
        return self._made[max_model_len]

    def _make(self, max_model_len: int) -> tuple[Path, Requests] | str:
        try:
            check_context(self._requests, max_model_len)
        except BlendplanError as error:
            return str(error)
        requests = within_context(self._requests, max_model_len)
        if self._tree is None:
            self._tree = build_tree(requests)
        lengths = predict_lengths(requests, self._tree, self._lengths)
        path = Path(self._folder.name) / f"{max_model_len}.pickle"
        with path.open("wb") as file:
            pickle.dump(Ground(requests, self._tree, lengths), file, pickle.HIGHEST_PROTOCOL)
        return path, requests


@dataclass(frozen=True)
class _Task:
    """One combination, as a process gets it."""

    ground: Path
    combination: Combination
    how: How
    most: int | None


def offers_of(
    grounds: Grounds,
    combinations: Sequence[Combination],
    how: How,
    most: int | None,
    processes: int | None,
    progress: Progress,
) -> list[tuple[Offer, Combination]]:
    """An offer for each combination, in their order.

    Args:
        grounds: the requests.
        combinations: that fit.
        how, most: as of `make_offer`.
        processes: of this machine; see `LocalTasks`.
        progress: called as combinations are done.
    """
    tasks = [_Task(grounds.path(one), one, how, most) for one in combinations]
    made = []
    with LocalTasks(min(processes or LocalTasks().processes, len(tasks))) as workers:
        progress("planning combinations", 0, len(tasks))
        for offer, one in zip(workers.map(_make_offer, tasks), combinations, strict=True):
            made.append((offer, one))
            progress("planning combinations", len(made), len(tasks))
    return made


def _make_offer(task: _Task) -> Offer:
    return make_offer(_ground(task.ground), task.combination, task.how, task.most)


@lru_cache(maxsize=2)
def _ground(path: Path) -> Ground:
    with path.open("rb") as file:
        found = pickle.load(file)
    assert isinstance(found, Ground)
    return found

"""Ids that several requests have, found without holding all ids: by sorted hashes on disk.

Hashes that are equal are looked up as ids, so that a collision is no repetition.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from blendplan.kernels.kernel import kernel
from blendplan.planning.large.spill import read_batches
from blendplan.requests.tokens import binary_parts

# Hashes that are compared at once.
_AT_ONCE = 1 << 24
# FNV-1a, and the finish of splitmix64 for well mixed high bits.
_BASIS, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))


@dataclass(frozen=True)
class Repeated:
    """A request with the id of an earlier one.

    Attributes:
        place: of the request.
        earlier: of the first with this id.
        id: the id.
        body: its own JSON, None where it has none.
    """

    place: int
    earlier: int
    id: str
    body: bytes | None


def write_id_hashes(ids: pa.Array, path: Path) -> None:
    """Write the sorted hashes of some ids, uint64, as an array of numpy."""
    hashes = hashes_of(ids)
    hashes.sort()
    np.save(path, hashes)


def hashes_of(ids: pa.Array) -> NDArray[np.uint64]:
    """A hash of each id; uint64 [n].

    Args:
        ids: large_string [n], no nulls.
    """
    return _hashes(*binary_parts(ids))


def repeated(hash_files: Sequence[Path], run_files: Sequence[Path]) -> list[Repeated]:
    """Requests with the id of an earlier one, by place.

    Args:
        hash_files, run_files: of each run.
    """
    arrays = [np.load(path, mmap_mode="r") for path in hash_files]
    suspects = _in_several(arrays)
    if not len(suspects):
        return []
    places: list[NDArray[np.int64]] = []
    ids: list[pa.Array] = []
    bodies: list[pa.Array] = []
    for hashes, path in zip(arrays, run_files, strict=True):
        where = np.searchsorted(hashes, suspects)
        if np.any(hashes[np.minimum(where, len(hashes) - 1)] == suspects):
            for batch in read_batches(path, 0, None):
                mine = np.flatnonzero(np.isin(hashes_of(batch.column("id")), suspects))
                if len(mine):
                    taken = batch.take(pa.array(mine))
                    places.append(taken.column("source_row").to_numpy())
                    ids.append(taken.column("id"))
                    bodies.append(taken.column("body"))
    return _later_ones(np.concatenate(places), pa.chunked_array(ids), pa.chunked_array(bodies))


def _in_several(arrays: Sequence[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    """Hashes that occur more than once, rising; `arrays` are sorted."""
    total = sum(len(hashes) for hashes in arrays)
    slices = -(-total // _AT_ONCE)
    cuts = [np.uint64((number << 64) // slices) for number in range(1, slices)]
    starts = [0] * len(arrays)
    found = [np.zeros(0, np.uint64)]
    for cut in [*cuts, None]:
        ends = [
            len(hashes) if cut is None else int(np.searchsorted(hashes, cut)) for hashes in arrays
        ]
        some = np.sort(
            np.concatenate([hashes[a:b] for hashes, a, b in zip(arrays, starts, ends, strict=True)])
        )
        found.append(np.unique(some[1:][some[1:] == some[:-1]]))
        starts = ends
    return np.concatenate(found)


def _later_ones(
    places: NDArray[np.int64], ids: pa.ChunkedArray, bodies: pa.ChunkedArray
) -> list[Repeated]:
    order = np.argsort(places)
    names = ids.take(pa.array(order)).to_pylist()
    first: dict[str, int] = {}
    later = []
    for row, name in zip(order.tolist(), names, strict=True):
        place = int(places[row])
        earlier = first.setdefault(name, place)
        if earlier != place:
            later.append(Repeated(place, earlier, name, bodies[row].as_py()))
    return later


@kernel
def _hashes(offsets: NDArray[np.int64], data: NDArray[np.uint8]) -> NDArray[np.uint64]:
    hashes = np.empty(len(offsets) - 1, dtype=np.uint64)
    for i in range(len(hashes)):
        mixed = _BASIS
        for j in range(offsets[i], offsets[i + 1]):
            mixed = (mixed ^ np.uint64(data[j])) * _PRIME
        mixed = (mixed ^ (mixed >> _SHIFTS[0])) * _FIRST
        mixed = (mixed ^ (mixed >> _SHIFTS[1])) * _SECOND
        hashes[i] = mixed ^ (mixed >> _SHIFTS[2])
    return hashes

"""`requests_from_lists`: requests that a program has in memory."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from blendplan.errors import BlendplanError
from blendplan.offsets import offsets_of
from blendplan.printable import show
from blendplan.requests.columns import Requests, repeated_ids, several
from blendplan.requests.record import LARGEST_TOKEN_ID, MOST_ANSWERS, MOST_TOKENS


def requests_from_lists(
    prompts: Sequence[Sequence[int] | NDArray[np.integer]],
    *,
    output_tokens: Sequence[int | None] | NDArray[np.integer] | None = None,
    max_tokens: Sequence[int | None] | NDArray[np.integer] | None = None,
    ids: Sequence[str] | None = None,
    answers: Sequence[int | None] | NDArray[np.integer] | None = None,
) -> Requests:
    """Make `Requests` from prompts of token ids.

    Args:
        prompts: token ids of each prompt, 0 to 2^31 - 1, at least one; n prompts.
        output_tokens: output lengths where known, None where not; n numbers.
        max_tokens: caps on the output length, None where there is none; n numbers.
        ids: unique names; "1", "2", ... by default.
        answers: how many answers each request asks for, as ``n`` does, None for one; n numbers.

    Raises:
        BlendplanError: an empty prompt, a number out of range, a repeated id, or columns of
            different lengths.

    >>> requests = requests_from_lists([[1, 2, 3], [1, 2]], output_tokens=[7, None])
    >>> len(requests), requests.prompt(1).tolist(), requests.output_tokens.tolist()
    (2, [1, 2], [7, -1])
    """
    prompts = _listed("prompts", prompts)
    if len(prompts) == 0:
        raise BlendplanError("no prompts; give at least one")
    arrays = [_prompt(prompt, index) for index, prompt in enumerate(prompts)]
    offsets = offsets_of(np.array([len(array) for array in arrays], np.int64))
    numbered = (str(number) for number in range(1, len(arrays) + 1))
    names = list(numbered) if ids is None else _listed("ids", ids)
    if len(names) != len(arrays):
        raise BlendplanError(f"{len(names)} ids for {len(arrays)} prompts; give one for each")
    for index, name in enumerate(names):
        if not isinstance(name, str) or not name:
            raise BlendplanError(f"ids[{index}] is {show(name)}; give a non-empty string")
        if not _is_utf8(name):
            raise BlendplanError(
                f"ids[{index}] is {show(name)}, with half a surrogate pair; write the whole "
                "character"
            )
    id_column = pa.array(names, pa.large_string())
    for index, earlier in repeated_ids(id_column).items():
        raise BlendplanError(
            f"ids[{index}] is {show(names[index])}, as is ids[{earlier}]; ids must be unique"
        )
    return Requests(
        ids=id_column,
        source_row=np.arange(len(arrays), dtype=np.int64),
        token_ids=np.concatenate(arrays),
        offsets=offsets,
        output_tokens=_counts(output_tokens, "output_tokens", len(arrays)),
        max_tokens=_counts(max_tokens, "max_tokens", len(arrays)),
        answers=several(np.maximum(1, _counts(answers, "answers", len(arrays), MOST_ANSWERS))),
    )


def _prompt(prompt: Sequence[int] | NDArray[np.integer], index: int) -> NDArray[np.int32]:
    numbers = _integers(prompt, f"prompts[{index}]")
    if not len(numbers):
        raise BlendplanError(f"prompts[{index}] is empty; give at least one token id")
    if numbers.min() < 0 or numbers.max() > LARGEST_TOKEN_ID:
        bad = numbers[(numbers < 0) | (numbers > LARGEST_TOKEN_ID)][0]
        raise BlendplanError(
            f"prompts[{index}] holds {bad}; token ids are whole numbers from 0 to "
            f"{LARGEST_TOKEN_ID}"
        )
    return numbers.astype(np.int32)


def _counts(
    values: Sequence[int | None] | NDArray[np.integer] | None,
    name: str,
    count: int,
    most: int = MOST_TOKENS,
) -> NDArray[np.int32]:
    """Numbers from 1, -1 where there is none."""
    if values is None:
        return np.full(count, -1, np.int32)
    listed = _listed(name, values)
    stated = np.array([value is not None for value in listed], np.bool_)
    numbers = np.full(len(stated), -1, np.int64)
    numbers[stated] = _integers([value for value in listed if value is not None], name)
    if len(numbers) != count:
        raise BlendplanError(f"{len(numbers)} {name} for {count} prompts; give one for each")
    wrong = np.flatnonzero(stated & ((numbers < 1) | (numbers > most)))
    if len(wrong):
        raise BlendplanError(
            f"{name}[{wrong[0]}] is {numbers[wrong[0]]}; "
            f"give a whole number from 1 to {most}, or None"
        )
    return numbers.astype(np.int32)


def _listed(name: str, values: object) -> list[Any]:
    """The items of an argument that is a list, an array or the like."""
    refused = isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable)
    if refused or (isinstance(values, np.ndarray) and values.ndim == 0):
        raise BlendplanError(f"{name} is {show(values)}; give a list, one item for each prompt")
    return list(cast(Iterable[Any], values))


def _is_utf8(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _integers(values: Sequence[int] | NDArray[np.integer], what: str) -> NDArray[np.int64]:
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, OverflowError) as error:
        raise BlendplanError(f"{what} is not a flat list of whole numbers") from error
    if array.ndim != 1 or (len(array) and array.dtype.kind not in "iu"):
        raise BlendplanError(f"{what} is not a flat list of whole numbers")
    if array.dtype == np.uint64 and len(array) and array.max() > np.iinfo(np.int64).max:
        raise BlendplanError(f"{what} holds {array.max()}; token ids and lengths are far smaller")
    return array.astype(np.int64)

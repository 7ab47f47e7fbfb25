"""Types and ranges of everything in a plan file that anybody reads: one row each.

`METADATA` and `COLUMNS` are the tables: whoever adds a key or a column adds its row. What the
values have to do with each other is the business of `check`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from blendplan.checks.arguments import dictionary, flag, number, one_of, text, whole
from blendplan.checks.ranges import RANGES
from blendplan.cost.reach import reach_from_metadata
from blendplan.errors import BlendplanError
from blendplan.hardware.kv_layout import KvLayout
from blendplan.hardware.model import KV_BITS
from blendplan.lengths.predicted import OUTCOMES
from blendplan.planfile.columns import numbers, outcomes_of
from blendplan.planfile.part_of_job import check_part_of_job
from blendplan.policy.blend.start import BlendOptions
from blendplan.policy.holding import holding_from_metadata
from blendplan.policy.known import StepPrices
from blendplan.policy.state_machine import SIDES
from blendplan.printable import show
from blendplan.requests.record import LARGEST_TOKEN_ID, MOST_ANSWERS, MOST_TOKENS
from blendplan.requests.source_columns import schema_of_text

Check = Callable[[str, object], object]
"""Takes the name and the value; raises a BlendplanError where the value is wrong."""

_MOST = 2**53  # whole numbers above it are no counts, and JSON readers round them
_LONGEST_TEXT = 1 << 20


def _whole(least: int = 0, most: int = _MOST) -> Check:
    return lambda name, value: whole(name, value, least, most)


def _limited(name: str, value: object) -> int:
    return whole(name, value, *RANGES[name.rpartition(".")[2]])


def _number(least: float = 0.0, most: float = 1e300) -> Check:
    return lambda name, value: number(name, value, least, most)


def _text(name: str, value: object) -> None:
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
        raise BlendplanError(f"{name} is {show(value)}; it must be a text")


def _or_none(check: Check) -> Check:
    return lambda name, value: None if value is None else check(name, value)


def _mapping(name: str, value: object) -> dict[str, Any]:
    return dictionary(name, value, "it must be an object")


def _overlap(name: str, value: object) -> None:
    number(name, math.inf if value == "inf" else value, 1.0, math.inf)


def _step_prices(name: str, value: object) -> None:
    prices = _mapping(name, value)
    if not set(prices) <= set(StepPrices._fields):
        raise BlendplanError(f"{name} has other keys than {', '.join(StepPrices._fields)}")
    for key in ("token_s", "read_s"):
        number(f"{name}.{key}", prices.get(key), 0.0, 1e300)
    for key in ("state_reads", "prefill_share"):
        number(f"{name}.{key}", prices.get(key, 0.0), 0.0, 1e300)
    whole(f"{name}.least_tokens", prices.get("least_tokens"), 0, _MOST)
    ranges = prices.get("efficient_tokens", [])
    if not isinstance(ranges, list) or not all(
        isinstance(pair, list) and len(pair) == 2 for pair in ranges
    ):
        raise BlendplanError(f"{name}.efficient_tokens is {show(ranges)}; it must hold pairs")
    for pair in ranges:
        for end in pair:
            whole(f"{name}.efficient_tokens", end, 0, _MOST)


def _step_sizes(name: str, value: object) -> None:
    for size, steps in _mapping(name, value).items():
        if not (size.isascii() and size.isdecimal() and len(size) < 10):
            raise BlendplanError(f"{name} has the key {show(size)}; keys are numbers of tokens")
        whole(f"{name}[{size}]", steps, 0, _MOST)


def _graph_sizes(name: str, value: object) -> None:
    for engine, graphs in _mapping(name, value).items():
        where = f"{name}.{show(engine)}"
        for kind in ("mixed", "decode"):
            sizes = _mapping(where, graphs).get(kind)
            if not isinstance(sizes, list):
                raise BlendplanError(f"{where}.{kind} is {show(sizes)}; it must be a list")
            for size, before in zip(sizes, [0, *sizes], strict=False):
                whole(f"{where}.{kind}", size, before + 1, _MOST)


def _parameters(name: str, value: object) -> None:
    for key, item in _mapping(name, value).items():
        if not isinstance(item, str | bool):
            number(f"{name}.{show(key)}", item, -1e300, 1e300)


def _replan(name: str, value: object) -> None:
    replan = _mapping(name, value)
    whole(f"{name}.every_steps", replan.get("every_steps"), 1, _MOST)
    number(f"{name}.expected_output_tokens", replan.get("expected_output_tokens"), 0.0, 1e300)
    revisions = replan.get("revisions")
    if not isinstance(revisions, list):
        raise BlendplanError(f"{name}.revisions is {show(revisions)}; it must be a list")
    for place, revision in enumerate(revisions):
        where = f"{name}.revisions[{place}]"
        told = _mapping(where, revision)
        whole(f"{where}.finished", told.get("finished"), 0, _MOST)
        for key in ("work", "output_tokens"):
            number(f"{where}.{key}", told.get(key), 0.0, 1e300)


def _turnaround(name: str, value: object) -> None:
    for key, seconds in _mapping(name, value).items():
        number(f"{name}.{show(key)}", seconds, 0.0, 1e300)


# What `inspect` draws; other quantities may be there too.
_DRAWN = ("end_s", "step_s", "compute_s", "memory_s", "kv_tokens", "running", "prefill_tokens")


def _series(name: str, value: object) -> None:
    series = _mapping(name, value)
    missing = [key for key in _DRAWN if key not in series]
    if missing:
        raise BlendplanError(f"{name} lacks {missing[0]}")
    for key, values in series.items():
        if not isinstance(values, list) or not all(type(item) in (int, float) for item in values):
            raise BlendplanError(f"{name}.{show(key)} is {show(values)}; it must hold numbers")
        if len(values) != len(series["end_s"]):
            raise BlendplanError(f"{name}.{show(key)} is of another length than {name}.end_s")
        if values and not -1e300 <= min(values) <= max(values) <= 1e300:
            raise BlendplanError(f"{name}.{show(key)} holds a number out of range")
        if any(item != item for item in values):
            raise BlendplanError(f"{name}.{show(key)} holds a number that is none")
    ends = series["end_s"]
    if any(after < before for before, after in pairwise(ends)):
        raise BlendplanError(f"{name}.end_s is not rising")


# Keys within keys are joined by a point. Beside these there may be "sequences", see `check`.
METADATA: Mapping[str, Check] = {
    "requests": _whole(1),
    "replicas": _limited,
    "policy": text,
    "policy_parameters": _parameters,
    "seed": _limited,
    "replan": _or_none(_replan),
    "step_prices": _step_prices,
    "gpu": text,
    "gpu_profile": _or_none(_text),
    "model": text,
    "model_shape": _or_none(_mapping),
    "tp": _limited,
    "overlap": _overlap,
    "cost_model.name": text,
    "cost_model.parameters": _mapping,
    "cost_model.note": _text,
    "engine.kv_tokens": _limited,
    "engine.max_num_seqs": _limited,
    "engine.max_num_batched_tokens": _limited,
    "engine.block_size": _limited,
    "engine.kv_dtype": lambda name, value: one_of(name, value, ("auto", *KV_BITS)),
    "engine.mixed_steps": _step_sizes,
    "engine.decode_steps": _step_sizes,
    "engine.graph_sizes": _graph_sizes,
    "density": _number(),
    "prefix_sharing.planned": _number(0.0, 1.0),
    "prefix_sharing.optimal": _number(0.0, 1.0),
    "lengths.note": _text,
    "lengths.estimated_prompts": flag,
    "predicted.makespan_s": _number(),
    "predicted.throughput_tokens_per_s": _number(),
    "predicted.steps": _whole(),
    "predicted.preemptions": _whole(),
    "predicted.prompt_tokens": _whole(),
    "predicted.output_tokens": _whole(),
    "predicted.prefill_tokens": _whole(),
    "predicted.compute_s": _number(),
    "predicted.memory_s": _number(),
    "predicted.turnaround_s": _turnaround,
    "bound_s": _number(),
    "bound_ratio": _number(0.0, 1.0 + 1e-9),
    "series": _series,
    "request_file_sha256": _text,
}

# Least and most of each numeric column, both included; only those in `_MAY_BE_NULL` have nulls.
COLUMNS: Mapping[str, tuple[float, float]] = {
    "position": (0, _MOST),
    "source_row": (0, _MOST),
    "answer": (0, MOST_ANSWERS - 1),
    "replica": (0, RANGES["replicas"][1] - 1),
    "batch": (0, _MOST),
    "memory_left_tokens": (0, RANGES["kv_tokens"][1]),
    "memory_right_tokens": (0, RANGES["kv_tokens"][1]),
    "prefill_budget_tokens": (1, RANGES["max_num_batched_tokens"][1]),
    "prompt_tokens": (1, LARGEST_TOKEN_ID),
    "cached_tokens": (0, LARGEST_TOKEN_ID),
    "output_tokens_mean": (1, MOST_TOKENS),
    "output_tokens_p50": (1, MOST_TOKENS),
    "output_tokens_p90": (1, MOST_TOKENS),
    "output_tokens_known": (1, MOST_TOKENS),
    "max_tokens": (1, MOST_TOKENS),
    "new_prompt_tokens": (0, LARGEST_TOKEN_ID),
    "density": (0, 1e300),
    "family": (0, _MOST),
    "depth_first": (0, _MOST),
    "by_density": (0, _MOST),
    "start_s": (0, 1e300),
    "finish_s": (0, 1e300),
}
_MAY_BE_NULL = (
    "output_tokens_outcomes",
    "output_tokens_known",
    "max_tokens",
    "prompt_token_ids",
    "body",
)
_OPEN, _CLOSE = b"{}"


def check_metadata(metadata: Mapping[str, Any], *, whole_plan: bool = True) -> None:
    """Check every value that anybody reads.

    Args:
        metadata: of a plan, or of one of its parts.
        whole_plan: False for a part, which has no time line.

    Raises:
        BlendplanError: the first that is missing, of another type or out of range.
    """
    for path, check in METADATA.items():
        if path == "series" and not whole_plan:
            continue
        check(path, _value(metadata, path))
    if "sequences" in metadata:
        whole("sequences", metadata["sequences"], metadata["requests"], _MOST)
    # Plans that were made before there was such a choice have none.
    flag("engine.async_scheduling", metadata["engine"].get("async_scheduling", False))
    share = metadata["engine"].get("gpu_memory_utilization", 1.0)
    number("engine.gpu_memory_utilization", share, 0.0, 1.0, above_least=True)
    if metadata.get("tokenizer") is not None:
        _check_tokenizer(metadata["tokenizer"])
    if "kv_layout" in metadata["engine"]:
        layout = KvLayout.from_metadata("engine.kv_layout", metadata["engine"]["kv_layout"])
        if layout.block_tokens != metadata["engine"]["block_size"]:
            raise BlendplanError(
                f"engine.block_size is {metadata['engine']['block_size']}, the blocks of "
                f"engine.kv_layout have {layout.block_tokens} tokens"
            )
        asked = metadata["engine"].get("asked_block_size")
        whole("engine.asked_block_size", asked, *RANGES["block_size"])
    if "max_model_len" in metadata["engine"]:
        _limited("engine.max_model_len", metadata["engine"]["max_model_len"])
    if "serving" in metadata:
        serving = _mapping("serving", metadata["serving"])
        for key in ("engine", "checked_by"):
            text(f"serving.{key}", serving.get(key))
        _mapping("serving.arguments", serving.get("arguments"))
    if "repeats" in metadata:
        repeats = _mapping("repeats", metadata["repeats"])
        whole("repeats.requests", repeats.get("requests"), 1, _MOST)
    if "source_columns" in metadata:
        schema_of_text(metadata["source_columns"])
    if "reach" in metadata:
        reach_from_metadata(metadata["reach"], "reach")
    if "holding" in metadata:
        holding_from_metadata(metadata["holding"], "holding")
    check_part_of_job(metadata)
    _check_blend(metadata)
    _check_total(metadata)
    parts = metadata.get("parts", [])
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise BlendplanError(f"parts is {show(parts)}; it must be a list of objects")
    if "parts" in metadata and (not parts or not whole_plan):
        raise BlendplanError("parts is empty, or within another part")
    for part in parts:
        check_metadata(part, whole_plan=False)


def check_step_sizes(metadata: Mapping[str, Any]) -> None:
    """Check that no step is larger than the engine takes.

    Raises:
        BlendplanError: one does.
    """
    engine = metadata["engine"]
    for key, limit in (("mixed_steps", "max_num_batched_tokens"), ("decode_steps", "max_num_seqs")):
        largest = max(map(int, engine[key]), default=0)
        if largest > engine[limit]:
            raise BlendplanError(f"engine.{key} has a step of {largest} tokens, over {limit}")


def _value(metadata: Mapping[str, Any], path: str) -> Any:
    found: Any = metadata
    for key in path.split("."):
        if not isinstance(found, dict) or key not in found:
            raise BlendplanError(f"there is no {path}")
        found = found[key]
    return found


def _check_tokenizer(value: object) -> None:
    """The fingerprint of the tokenizer that made the prompts; see `requests.fingerprint`."""
    found = _mapping("tokenizer", value)
    for key in ("vocabulary_sha256", "chat_template_sha256"):
        _text(f"tokenizer.{key}", found.get(key))
    whole("tokenizer.vocabulary_size", found.get("vocabulary_size"), 0, LARGEST_TOKEN_ID)


def _check_blend(metadata: Mapping[str, Any]) -> None:
    if metadata["policy"] != "blend":
        return
    known = {field.name: field.type for field in fields(BlendOptions)}
    for name, value in metadata["policy_parameters"].items():
        where = f"policy_parameters.{show(name)}"
        if name == "seed":
            whole(where, value, *RANGES["seed"])
        elif name == "order":
            one_of(where, value, ("blend", "dfs", "fcfs", "random"))
        elif name == "burst_steps":
            whole(where, value, 1, _MOST)
        elif known.get(name) is bool:
            flag(where, value)
        elif name in known:
            number(where, value, 0.0, 1e6)
        else:
            raise BlendplanError(f"{where} is no parameter of blend")


def _check_total(metadata: Mapping[str, Any]) -> None:
    """Check what a sample told of all output tokens, where there was one."""
    total = metadata["lengths"].get("total")
    if total is None:
        return
    where = "lengths.total"
    _mapping(where, total)
    for key in ("estimate", "low", "high", "mean"):
        number(f"{where}.{key}", total.get(key), 0.0, 1e300)
    number(f"{where}.level", total.get("level"), 0.0, 1.0)
    whole(f"{where}.results", total.get("results"), 1, _MOST)


def check_column_values(table: pa.Table) -> None:
    """Check every column by itself.

    Raises:
        BlendplanError: the first value that is missing or out of range, with its row.
    """
    for name in table.column_names:
        column = table.column(name)
        if column.null_count and name not in _MAY_BE_NULL:
            none_of(_mask(pc.is_null(column)), f"{name} is missing")
        if name in COLUMNS:
            least, most = COLUMNS[name]
            values = numbers(table, name) if not column.null_count else column.drop_null()
            values = np.asarray(values)
            if len(values) and not (values.min() >= least and values.max() <= most):
                filled = np.asarray(column.fill_null(int(least)))
                none_of(~((filled >= least) & (filled <= most)), f"{name} is out of range")
    _check_sides(table)
    _check_outcomes(table)
    _check_prompts(table)
    _check_bodies(table)


def _check_sides(table: pa.Table) -> None:
    for chunk in table.column("side").chunks:
        strange = set(chunk.dictionary.to_pylist()) - set(SIDES)
        if strange:
            raise BlendplanError(f"side is {show(strange.pop())}; it must be one of {SIDES}")


def _check_outcomes(table: pa.Table) -> None:
    lists = table.column("output_tokens_outcomes")
    lengths = np.asarray(pc.fill_null(pc.list_value_length(lists), OUTCOMES))
    none_of(lengths != OUTCOMES, f"output_tokens_outcomes are not {OUTCOMES} lengths")
    if any(chunk.flatten().null_count for chunk in lists.chunks):
        raise BlendplanError("output_tokens_outcomes holds a length that is missing")
    outcomes = outcomes_of(table)
    in_range = (outcomes >= 1) & (outcomes <= MOST_TOKENS)
    none_of(np.asarray(~in_range.all(axis=1)), "output_tokens_outcomes is out of range")
    falls = np.asarray((np.diff(outcomes, axis=1) < 0).any(axis=1))
    none_of(falls, "output_tokens_outcomes do not rise")
    far = np.abs(outcomes.mean(axis=1) / numbers(table, "output_tokens_mean") - 1.0) > 1e-3
    none_of(far, "output_tokens_outcomes and output_tokens_mean differ")


def _check_prompts(table: pa.Table) -> None:
    lists = table.column("prompt_token_ids")
    lengths = np.asarray(pc.fill_null(pc.list_value_length(lists), -1))
    first = numbers(table, "answer") == 0
    none_of(
        (lengths >= 0) & (lengths != numbers(table, "prompt_tokens")),
        "prompt_token_ids and prompt_tokens differ",
    )
    for chunk in lists.chunks:
        ids = chunk.flatten()
        if ids.null_count or (len(ids) and ids.to_numpy().min() < 0):
            raise BlendplanError("prompt_token_ids holds a number that is no token id")
    without_body = _mask(pc.is_null(table.column("body")))
    none_of((lengths < 0) & without_body & first, "there is neither a prompt nor a body")
    none_of(
        ~((lengths < 0) & without_body) & ~first, "a further answer has a prompt or a body again"
    )


def _check_bodies(table: pa.Table) -> None:
    """Whether bodies look like JSON objects; parsing all of them would take too long."""
    bodies = table.column("body")
    for place, end in ((0, 1), (-1, None)):
        edge = pc.binary_slice(bodies, place, end) if end else pc.binary_slice(bodies, place)
        wanted = bytes([_OPEN if place == 0 else _CLOSE])
        none_of(
            _mask(pc.fill_null(pc.not_equal(edge, wanted), False)), "the body is no JSON object"
        )
    try:
        bodies.cast(pa.string())
    except pa.ArrowInvalid:
        raise BlendplanError("a body is not UTF-8") from None


def none_of(bad: NDArray[np.bool_], what: str) -> None:
    """Raise with the first row for which ``bad`` holds."""
    if bad.any():
        raise BlendplanError(f"row {int(np.argmax(bad))}: {what}")


def _mask(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = column.to_numpy().astype(np.bool_)
    return mask

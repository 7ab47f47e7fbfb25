"""Plans altered together with their checksums: found by `verify`, or of use all the same."""

import copy
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import blendplan
from blendplan import BlendplanError, Plan, Requests
from blendplan.planfile.check import column_digest, metadata_digest
from blendplan.planfile.columns import SCHEMA
from blendplan.planfile.well_formed import COLUMNS, METADATA
from tests.cli.cli_runs import error_line, run

WRONG: tuple[Any, ...] = (
    None, True, -1, 0, 7, 2**31, 10**30, 0.5, -0.5, float("nan"), float("inf"), 1e308, "", "x",
    "1", "inf", [], [1], [[1]], ["x"], {}, {"x": 1}, {"1": 1}, {"1": [1]}, [{}],
)  # fmt: skip


ENGINE: dict[str, Any] = {"kv_tokens": 4096, "max_num_seqs": 8, "max_num_batched_tokens": 128}


def _job() -> Requests:
    """Thirty requests of three families."""
    prompts = [[*range(row % 3 * 50), 1000 + row, 2000 + row] for row in range(30)]
    return blendplan.requests_from_lists(prompts, output_tokens=[1 + 5 * row for row in range(30)])


def _job_of_text() -> Requests:
    """The same as if it had been read as text with the built-in estimate, half without lengths."""
    bodies = [
        json.dumps({"custom_id": str(row), "body": {"prompt": "ü" * row, "top_p": row / 60}})
        for row in range(1, 31)
    ]
    encoded = pa.array([body.encode() for body in bodies], pa.large_binary())
    lengths = np.where(np.arange(30) % 2, _job().output_tokens, -1).astype(np.int32)
    return replace(
        _job(), bodies=encoded, output_tokens=lengths, estimated_tokens=True, sha256="ab" * 32
    )


@pytest.fixture(scope="module")
def plans() -> list[Plan]:
    """One of each shape: with token ids, with text, of two replicas, of another policy."""
    return [
        blendplan.plan(_job(), gpu="a100-80g", **ENGINE),
        blendplan.plan(_job_of_text(), gpu="a100-80g", policy="dfs", **ENGINE),
        blendplan.plan(_job(), gpu="a100-80g", policy="blendserve", replicas=2, **ENGINE),
    ]


def _sealed(table: pa.Table, metadata: dict[str, Any]) -> Plan:
    """A plan with checksums that fit, whatever it says."""
    metadata["columns_sha256"] = column_digest(table)
    metadata["metadata_sha256"] = metadata_digest(metadata)
    return Plan(table, metadata)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all values within JSON values; of long lists only the first items."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:2])
    found = []
    for key, item in items:
        found.append((*path, key))
        if isinstance(item, dict | list):
            found += _places(item, (*path, key))
    return found


def _altered(metadata: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    copied = copy.deepcopy(metadata)
    holder: Any = copied
    for key in path[:-1]:
        holder = holder[key]
    if value is KeyError:
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    return copied


def _use(plan: Plan, folder: Path) -> None:
    """Everything that reads a plan; nothing but a BlendplanError may come out."""
    try:
        plan.verify()
    except BlendplanError:
        return
    for part in range(len(plan.metadata.get("parts", [0]))):
        try:
            one = plan.part(part)
            blendplan.simulate(one)
            blendplan.replay(one)
        except BlendplanError:
            pass
    file = folder / "plan.arrow"
    plan.write(file)
    assert run("inspect", file).exit_code in (0, 1)
    assert run("inspect", file, "--json").exit_code in (0, 1)


@pytest.mark.parametrize("shape", range(3))
def test_altered_metadata(shape: int, plans: list[Plan], tmp_path: Path) -> None:
    plan, chance = plans[shape], random.Random(shape)
    for path in chance.sample(_places(plan.metadata), 40):
        for value in (KeyError, chance.choice(WRONG)):
            _use(_sealed(plan.table, _altered(plan.metadata, path, value)), tmp_path)


def test_every_wrong_type_of_what_is_read_is_found(plans: list[Plan]) -> None:
    plan = plans[0]
    values: tuple[Any, ...] = (KeyError, [[1]], [{}], -1.5, float("nan"))
    for path in METADATA:
        for value in values:
            altered = _altered(plan.metadata, tuple(path.split(".")), value)
            with pytest.raises(BlendplanError, match="fails verification"):
                _sealed(plan.table, altered).verify()


@pytest.mark.parametrize("shape", range(3))
@pytest.mark.parametrize("name", SCHEMA.names)
def test_altered_columns(shape: int, name: str, plans: list[Plan], tmp_path: Path) -> None:
    plan, chance = plans[shape], random.Random(name)
    values = plan.table.column(name).to_pylist()
    wrong: list[Any]
    if name in ("side", "request_id"):
        wrong = [None, "", "\x1b", "neither"]
    elif name == "body":
        wrong = [None, b"", b"{", b"{}", b"[1]", b"{\xff}", b'{"body": 3, "prompt": "x"}']
        wrong += [b'{"prompt": "x", "output_tokens": "many"}', b'{"a":' * 9000 + b"1" + b"}" * 9000]
    elif name == "prompt_token_ids":
        wrong = [None, [], [-1], [None], [1] * 5000]
    elif name == "output_tokens_outcomes":
        wrong = [None, [], [5.0] * 9, [5.0] * 9 + [None], [float("nan")] * 10, [0.0] * 10]
        wrong += [[1.0] * 9 + [1e30], [9.0] * 9 + [1.0], [1.0] * 9 + [2.0], [7.0] * 10]
    elif pa.types.is_floating(SCHEMA.field(name).type):
        wrong = [None, -1.0, 0.0, float("nan"), float("inf"), 1e30]
    else:
        wrong = [None, -1, 0, 1, 2**31 - 1]
    for value in wrong:
        copied = list(values)
        for row in chance.sample(range(len(copied)), 3):
            copied[row] = value
        column = pa.chunked_array([pa.array(copied, SCHEMA.field(name).type)])
        table = plan.table.set_column(SCHEMA.names.index(name), SCHEMA.field(name), column)
        try:
            sealed = _sealed(table, copy.deepcopy(plan.metadata))
        except (pa.ArrowException, ValueError, TypeError):
            pytest.fail(f"no checksum of a column with {value!r}")
        _use(sealed, tmp_path)


def test_all_columns_have_a_range() -> None:
    looked_at_otherwise = {
        "request_id", "side", "output_tokens_outcomes", "prompt_token_ids", "body",
    }  # fmt: skip
    assert set(SCHEMA.names) - set(COLUMNS) == looked_at_otherwise


def test_a_damaged_head_is_found(plans: list[Plan], tmp_path: Path) -> None:
    file = tmp_path / "plan.arrow"
    plans[0].write(file)
    content = file.read_bytes()
    first = content.index(b'"gpu": "a100')
    assert content.rindex(b'"gpu": "a100') > first
    file.write_bytes(content[: first + 9] + b"b" + content[first + 10 :])
    result = run("verify", file)
    assert result.exit_code == 1
    assert "damaged" in error_line(result)

"""`replay`: plan and run the prompts of a Ray dataset."""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from inspect import signature
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from blendplan.checks.arguments import dictionary, text
from blendplan.checks.arguments import path as argument_path
from blendplan.checks.json_files import differing
from blendplan.cluster.connect import connected
from blendplan.errors import BlendplanError
from blendplan.planfile.plan import Plan
from blendplan.planning.planner import plan as make_plan
from blendplan.printable import show
from blendplan.replaying.cluster.options import Cluster
from blendplan.replaying.cluster.room import replicas_that_fit
from blendplan.replaying.run import replay as replay_plan
from blendplan.requests.batch_output import output_lines
from blendplan.requests.read import read_requests
from blendplan.requests.shape import PROMPT_FIELDS
from blendplan.whole_file import made_folder

if TYPE_CHECKING:
    from ray.data import Dataset

ANSWERS = pa.schema([("answer", pa.string()), ("response", pa.string()), ("error", pa.string())])
# Columns that are requests' own parameters, beside the prompt.
PARAMETERS = (
    "max_tokens",
    "max_completion_tokens",
    "output_tokens",
    "temperature",
    "top_p",
    "top_k",
    "n",
    "seed",
    "stop",
)
_BATCH_ROWS = 4096
# Where the plan says with which arguments it was made.
_JOB = "job"
_ROWS, _PLAN, _RESULTS = "rows.parquet", "plan.arrow", "results.jsonl"


def replay(
    dataset: "Dataset",
    engine: str = "vllm",
    *,
    gpu: str,
    model: str,
    folder: Path | str | None = None,
    prompt_column: str | None = None,
    replicas: int | None = None,
    cluster: Cluster | str = "auto",
    planning: Mapping[str, Any] | None = None,
    remark: Callable[[str], None] = lambda line: None,
    **options: Any,
) -> "Dataset":
    """Plan the prompts of a dataset, run them on the cluster, and give them back with answers.

    The dataset is read once, to a folder of the driver, in its order: nothing but the folder
    bounds its size, though planning holds the prompts in memory as `blendplan.plan` does.

    Args:
        dataset: with a column ``prompt``, ``messages`` or ``prompt_token_ids``, and columns of
            request parameters by their own names, see `PARAMETERS`.
        engine: its name, as of `blendplan.replay`.
        gpu, model: what to plan for, and to load.
        folder: where rows, plan and results are kept, for a later call with the same arguments to
            go on with what an earlier one left there; without it they are gone at the end.
        prompt_column: name of the column with the prompts, where it is none of those.
        replicas: engines that share the requests; as many as fit without it.
        cluster: as ``ray`` of `blendplan.replay`, where this program is not connected to one.
        planning: further arguments of `blendplan.plan`.
        remark: called with a line on anything that the user should know.
        options: further arguments of `blendplan.replay`.

    Returns:
        all columns of the dataset, in its order, and ``answer``, the text of the first choice;
        ``response``, the whole body of the answer as JSON; ``error``, null for none.

    Raises:
        BlendplanError: as `blendplan.plan` and `blendplan.replay`, or the dataset has no column of
            prompts, or has one by the name of an answer's, or the folder cannot be made, or was
            begun with another dataset or other arguments.
    """
    wanted = Cluster.of(cluster)
    chosen = {} if planning is None else dictionary("planning", planning, "give a dictionary")
    text("gpu", gpu, "give the name of a GPU")
    text("model", model, "give the name of a model, or its folder")
    asked = _asked(gpu=gpu, model=model, prompt_column=prompt_column, replicas=replicas, **chosen)
    unknown_options = options.keys() - signature(replay_plan).parameters.keys()
    if unknown_options:
        raise BlendplanError(
            f"blendplan.replay takes no {show(min(unknown_options))}; the number of engines is "
            "replicas, and Cluster says more of the cluster"
        )
    with ExitStack() as open_things:
        if folder is None:
            place = Path(
                open_things.enter_context(tempfile.TemporaryDirectory(prefix="blendplan-"))
            )
        else:
            place = made_folder(argument_path("folder", folder))
        ray = open_things.enter_context(connected(wanted.address))
        if (place / _PLAN).exists():
            made = Plan.read(place / _PLAN)
            _check_job(made, asked, place)
            _check_rows(dataset, place / _ROWS)
        else:
            column = _write_rows(dataset, place / _ROWS, prompt_column)
            requests = place / "requests.parquet"
            _write_requests(place / _ROWS, requests, column)
            tp = int(chosen.get("tp", 1))
            gpus = tp if wanted.gpus_per_replica is None else wanted.gpus_per_replica
            chosen["replicas"] = replicas or max(1, replicas_that_fit(ray, 1, gpus))
            made = make_plan(
                read_requests(requests, model_dir=model if Path(model).is_dir() else None),
                gpu=gpu,
                model=model,
                **chosen,
            )
            made.saying(**{_JOB: asked}).write(place / _PLAN)
        made = Plan.read(place / _PLAN)
        made.verify(place / _PLAN)
        replay_plan(
            made,
            engine,
            place / _RESULTS,
            **{"resume": True, "ray": wanted, "remark": remark, **options},
        )
        blocks = [ray.put(block) for block in _answered(place / _ROWS, place / _RESULTS)]
        return ray.data.from_arrow_refs(blocks)


def _asked(**arguments: Any) -> dict[str, Any]:
    """What a plan depends on beside the dataset, as JSON values; what is None is not said."""
    said = {name: value for name, value in arguments.items() if value is not None}
    values: dict[str, Any] = json.loads(json.dumps(said, default=str))
    return values


def _check_job(made: Plan, asked: Mapping[str, Any], folder: Path) -> None:
    """Make sure that a folder was begun with these arguments.

    Raises:
        BlendplanError: it was begun with others.
    """
    changed = differing(asked, made.metadata.get(_JOB, {}))
    if changed:
        raise BlendplanError(
            f"{folder} was begun with other arguments ({', '.join(changed)} changed since); give "
            "a folder of its own, or the same arguments"
        )


def _write_rows(dataset: "Dataset", path: Path, prompt_column: str | None) -> str:
    """The whole dataset in its order, in one file; returns the column with the prompts.

    Raises:
        BlendplanError: as `_prompt_column`, before anything is written; or there are no rows.
    """
    writer = None
    column = ""
    unfinished = path.with_name(path.name + ".partial")
    try:
        for batch in dataset.iter_batches(batch_format="pyarrow", batch_size=_BATCH_ROWS):
            if writer is None:
                column = _prompt_column(batch.schema, prompt_column)
                writer = pq.ParquetWriter(unfinished, batch.schema)
            writer.write_table(batch.cast(writer.schema))
    finally:
        if writer is not None:
            writer.close()
    if writer is None:
        raise BlendplanError("the dataset has no rows; there is nothing to replay")
    unfinished.replace(path)
    return column


def _check_rows(dataset: "Dataset", path: Path) -> None:
    """Make sure that a folder was begun with this dataset.

    Raises:
        BlendplanError: it was begun with another one.
    """
    kept = pq.ParquetFile(path).iter_batches(_BATCH_ROWS)
    given = dataset.iter_batches(batch_format="pyarrow", batch_size=_BATCH_ROWS)
    for before, now in zip_longest(kept, given):
        if before is None or now is None or not _same(pa.Table.from_batches([before]), now):
            raise BlendplanError(
                f"{path.parent} was begun with another dataset; give a folder of its own, or the "
                "rows that it was begun with, in their order"
            )


def _same(before: pa.Table, now: pa.Table) -> bool:
    """Whether two batches have the same rows; the file may have other types of the same values."""
    try:
        return bool(before.equals(now.cast(before.schema)))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError):
        return False


def _prompt_column(schema: pa.Schema, asked: str | None) -> str:
    """The column with the prompts.

    Raises:
        BlendplanError: there is none, or the dataset has a column that answers need.
    """
    taken = [name for name in ANSWERS.names if name in schema.names]
    if taken:
        raise BlendplanError(
            f"the dataset has a column {show(taken[0])}, which is where answers go; rename it"
        )
    names = [name for name in schema.names if name in PROMPT_FIELDS and name != "body"]
    if asked is not None:
        names = [name for name in schema.names if name == asked]
    if not names:
        listed = ", ".join(map(show, schema.names))
        raise BlendplanError(
            f"the dataset has no column {show(asked or 'prompt')}, only {listed}; give "
            "prompt_column the name of the one with the prompts"
        )
    return str(names[0])


def _write_requests(rows: Path, path: Path, prompt: str) -> None:
    """What is asked in each row, under its number."""
    source = pq.ParquetFile(rows)
    kind = source.schema_arrow.field(prompt).type
    name = prompt if prompt in PROMPT_FIELDS else "prompt"
    if prompt not in PROMPT_FIELDS and (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        name = "prompt_token_ids" if pa.types.is_integer(kind.value_type) else "messages"
    parameters = [one for one in PARAMETERS if one in source.schema_arrow.names]
    writer = None
    start = 0
    for batch in source.iter_batches(_BATCH_ROWS, columns=[prompt, *parameters]):
        table = pa.table(
            [
                pa.array([str(row) for row in range(start, start + len(batch))]),
                batch.column(prompt),
                *(batch.column(one) for one in parameters),
            ],
            names=["id", name, *parameters],
        )
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
        start += len(batch)
    if writer is not None:
        writer.close()


def _answered(rows: Path, results: Path) -> Iterator[pa.Table]:
    """Rows with their answers, some thousands at a time."""
    lines = output_lines(results)
    source = pq.ParquetFile(rows)
    for batch in source.iter_batches(_BATCH_ROWS):
        found = [_answer_of(line) for _, (_, line) in zip(range(len(batch)), lines, strict=False)]
        table = pa.Table.from_batches([batch])
        for number, field in enumerate(ANSWERS):
            values = pa.array([answer[number] for answer in found], field.type)
            table = table.append_column(field, values)
        yield table


def _answer_of(line: Mapping[str, Any]) -> tuple[str | None, str | None, str | None]:
    """Text, body and error of a result line."""
    if line.get("error") is not None:
        return None, None, json.dumps(line["error"])
    body = line["response"]["body"]
    choice = (body.get("choices") or [{}])[0]
    message = choice.get("message") or {}
    return message.get("content", choice.get("text")), json.dumps(body), None

"""``blendplan gpus``: the GPU catalogue."""

from typing import Any

import click

from blendplan.cli.answer import Answer, answering
from blendplan.cli.catalogue_options import Row, chosen, give_rows, listing

_NUMBERS = {
    "flops": "flop_per_s",
    "fp8": "fp8_flop_per_s",
    "fp4": "fp4_flop_per_s",
    "bandwidth": "bandwidth_bytes_per_s",
    "memory": "memory_bytes",
    "link": "link_bytes_per_s",
}


@click.command("gpus")
@listing(("name", *_NUMBERS), "name, other names or source")
@answering
def command(grep: str | None, sort: str | None, answer: Answer) -> None:
    """List the GPUs that --gpu knows by name.

    Prices of calibrated GPUs are fitted to measured kernels, those of others follow from stated
    efficiencies. A GPU that is missing here is described by a TOML file of the same fields, given
    as --gpu FILE; 'blendplan calibrate' writes one from measurements.
    """
    from blendplan.hardware.lookup import gpu_names

    gpus = chosen(map(_gpu, gpu_names()), grep, sort, _text, lambda gpu, key: gpu[_NUMBERS[key]])

    from blendplan.report.gpus import gpu_table

    give_rows(answer, "gpus", gpus, grep, gpu_table)


def _gpu(name: str) -> dict[str, Any]:
    from dataclasses import asdict

    from blendplan.hardware.catalogue import aliases
    from blendplan.hardware.lookup import gpu_spec

    spec = gpu_spec(name)
    values = asdict(spec) | {"calibrated": spec.calibrated, "aliases": aliases("gpus")[name]}
    del values["fitted"]
    return values


def _text(gpu: Row) -> str:
    return " ".join((gpu["name"], gpu["source"], *gpu["aliases"]))

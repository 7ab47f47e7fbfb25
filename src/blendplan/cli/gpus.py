"""``blendplan gpus``: the GPU catalogue."""

import click

from blendplan.cli.answer import Answer, answering


@click.command("gpus")
@answering
def command(answer: Answer) -> None:
    """List the GPUs that --gpu knows by name.

    Prices of calibrated GPUs are fitted to measured kernels, those of others follow from stated
    efficiencies. A GPU that is missing here is described by a TOML file of the same fields, given
    as --gpu FILE; 'blendplan calibrate' writes one from measurements.
    """
    from dataclasses import asdict

    from blendplan.hardware.lookup import gpu_names, gpu_spec

    specs = [gpu_spec(name) for name in gpu_names()]
    gpus = [asdict(spec) | {"calibrated": spec.calibrated} for spec in specs]
    for gpu in gpus:
        del gpu["fitted"]

    from blendplan.report.catalogue import gpu_table

    answer.give({"gpus": gpus}, lambda shown: gpu_table(shown["gpus"]))

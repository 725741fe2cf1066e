"""The command `colorize models`."""

import json
from dataclasses import asdict

import click

from colorize_cli.core.errors import printable


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
def command(as_json: bool) -> None:
    """List the models that `colorize --model NAME` accepts.

    They are the bundled models and the ONNX files in your model folder, whose path is printed to stderr.
    """
    from colorize_cli.inference import registry  # loads platformdirs, without which `doctor` must start

    if as_json:
        for entry in registry.entries():
            click.echo(json.dumps(asdict(entry)))
        return
    for entry in registry.entries():
        click.echo(printable(entry.name))
        if entry.problem:
            click.echo(f"  cannot be used: {printable(entry.problem)}")
        else:
            click.echo(f"  {printable(entry.says)}, {entry.kind}, working size {entry.working_size} pixels")
            click.echo(f"  license: {printable(entry.licence)}")
        click.echo(f"  {entry.size / 1e6:.1f} MB, SHA-256 {entry.sha256}")
    click.echo(f"More models are looked for in {printable(registry.folder())}", err=True)

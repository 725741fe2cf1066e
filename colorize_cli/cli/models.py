"""The command `models`."""

import json
from dataclasses import asdict

import click

from colorize_cli.core.errors import printable
from colorize_cli.inference.registry import entries, folder


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def command(as_json: bool) -> None:
    """Lists the models that `colorize --model NAME` knows.

    They are the one that comes with this program, and the ONNX files in a folder of yours, which is named.
    """
    if as_json:
        for entry in entries():
            click.echo(json.dumps(asdict(entry)))
        return
    for entry in entries():
        click.echo(printable(entry.name))
        if entry.problem:
            click.echo(f"  cannot be used: {printable(entry.problem)}")
        else:
            click.echo(f"  {printable(entry.says)}, {entry.kind}, sees {entry.working_size} pixels")
            click.echo(f"  licence: {printable(entry.licence)}")
        click.echo(f"  {entry.size / 1e6:.1f} MB, SHA-256 {entry.sha256}")
    click.echo(f"Others are looked for in {printable(folder())}", err=True)

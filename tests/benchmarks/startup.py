"""Seconds from the start of `colorize` to its first byte of work, on the CPU, and what they go to.

    python tests/benchmarks/startup.py [--rounds 7]

One small picture is coloured in processes of their own; each says when it had been told apart from others
(`python` starts, the command's modules are loaded), when its libraries were there, when the model was, and
when the first picture was read. The fastest of each counts.
"""

import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import click
from PIL import Image
from rich.console import Console
from rich.table import Table

BOUND = 0.7
PROBE = """
import sys, time
def tell(what):
    print(what, time.time(), file=sys.stderr)
tell("python")
from colorize_cli import __main__
__main__.settle()
from colorize_cli import cli
tell("command")
import colorize_cli.engine
tell("libraries")
from colorize_cli.engine import images
from colorize_cli.inference import model
load, decode = model.load, images.Images._decode
def loaded(*args, **kwargs):
    result = load(*args, **kwargs)
    tell("model")
    return result
def decoding(self, job):
    tell("first picture")
    return decode(self, job)
model.load, images.Images._decode = loaded, decoding
sys.argv[0] = "colorize"
cli.main()
"""


def once(source: Path, output: Path) -> dict[str, float]:
    """When what was reached, in seconds from the start of the process."""
    begun = time.time()
    line = [sys.executable, "-c", PROBE, source, output, "--device", "cpu", "-q", "--overwrite"]
    said = subprocess.run(line, check=True, stderr=subprocess.PIPE, text=True).stderr
    times = {}
    for entry in said.splitlines():
        what, _, when = entry.rpartition(" ")
        times[what] = float(when) - begun
    return times | {"end": time.time() - begun}


@click.command()
@click.option("--rounds", default=7, show_default=True)
def main(rounds: int) -> None:
    """Time it."""
    with TemporaryDirectory() as place:
        source = Path(place, "a.png")
        Image.linear_gradient("L").save(source)
        found = [once(source, Path(place, "b.png")) for _ in range(rounds)]
    best = min(found, key=lambda times: times["first picture"])
    table = Table("", "seconds since the start", "of it")
    before = 0.0
    for what, when in best.items():
        table.add_row(what, f"{when:.3f}", f"{when - before:.3f}")
        before = when
    console = Console()
    console.print(table)
    console.print(f"first byte of work after {best['first picture']:.2f} s (bound {BOUND})")


if __name__ == "__main__":
    main()

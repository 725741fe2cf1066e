"""Measure the seconds from the start of `colorize` to its first picture, on the CPU, by step.

    python tests/benchmarks/startup.py [--rounds 7]

One small picture is colorized in a new process, which reports when Python has started, when the command's
modules, its libraries and the model are loaded, and when the first picture is read. The fastest round
counts.
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
    """Return when each step was reached, in seconds since the start of the process."""
    begun = time.time()
    line = [sys.executable, "-c", PROBE, source, output, "--device", "cpu", "-q", "--overwrite"]
    output_lines = subprocess.run(line, check=True, stderr=subprocess.PIPE, text=True).stderr
    times = {}
    for entry in output_lines.splitlines():
        what, _, when = entry.rpartition(" ")
        times[what] = float(when) - begun
    return times | {"end": time.time() - begun}


@click.command()
@click.option("--rounds", default=7, show_default=True)
def main(rounds: int) -> None:
    """Measure several rounds and print the fastest."""
    with TemporaryDirectory() as folder:
        source = Path(folder, "a.png")
        Image.linear_gradient("L").save(source)
        found = [once(source, Path(folder, "b.png")) for _ in range(rounds)]
    best = min(found, key=lambda times: times["first picture"])
    table = Table("", "seconds since the start", "seconds of the step")
    before = 0.0
    for what, when in best.items():
        table.add_row(what, f"{when:.3f}", f"{when - before:.3f}")
        before = when
    console = Console()
    console.print(table)
    console.print(f"first picture after {best['first picture']:.2f} s (bound {BOUND})")


if __name__ == "__main__":
    main()

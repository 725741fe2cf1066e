"""Stop runs by signals at random moments, and check what they leave.

    python -m tests.benchmarks.signals --count 40 [--ray] [--seed 0]

SIGINT and SIGTERM in turn stop runs over photographs, pages of TIFFs, films and, with `--ray`, photographs on
Ray, at a moment between the start of the process and the end of an undisturbed run. A stopped run must exit
with status 130, or by the signal if Python has not started, without a traceback, and leave only complete
outputs. The same command again must exit with status 0, with the outputs of an undisturbed run (bytes of
pictures; packets of films, which are encoded with FFV1), and without temporary files and work folders.

Every failure is printed on a line, and then the exit status is 1. An end after more than two seconds is only
counted, as other work on the machine may delay it.
"""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np
from PIL import Image

from tests.helpers.videos import Recipe, make, packets

SIGNALS = (signal.SIGINT, signal.SIGTERM)
LATE = 2.0  # seconds


@dataclass(frozen=True)
class Case:
    """Inputs, options, and what an undisturbed run makes of them in so many seconds."""

    name: str
    options: tuple[str, ...]
    folder: Path
    whole: dict[str, object]
    seconds: float


def make_inputs(name: str, folder: Path) -> None:
    noise = np.random.default_rng(0)
    folder.mkdir()
    for number in range(2 if name == "films" else 3 if name == "pages" else 24):
        if name == "films":
            recipe = Recipe(frames=90, width=96, height=64, cut=40, codec="ffv1", options={})
            make(folder / f"{number}.mkv", recipe)
            continue
        pages = [Image.fromarray(noise.integers(0, 255, (300, 400), np.uint8)) for _ in range(12)]
        rest = {"save_all": True, "append_images": pages[1:]} if name == "pages" else {}
        pages[0].save(folder / f"{number}.{'tif' if name == 'pages' else 'png'}", **rest)


def start(case_folder: Path, output: str, options: tuple[str, ...]) -> subprocess.Popen[str]:
    temporary = case_folder / "tmp"
    temporary.mkdir(exist_ok=True)
    line = [sys.executable, "-m", "colorize_cli", "--device", "cpu", *options, "in", output]
    return subprocess.Popen(
        line,
        cwd=case_folder,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def contents(output: Path) -> dict[str, object]:
    """Return what the outputs contain, and all that is left beside them."""
    found = [
        path for path in sorted(output.rglob("*")) if path.suffix != ".jsonl" and path.name != ".colorize"
    ]
    return {
        str(path.relative_to(output)): packets(path)
        if path.suffix == ".mkv"
        else path.read_bytes()
        if path.is_file()
        else None
        for path in found
    }


def stop(case: Case, number: int, moment: float) -> tuple[float, list[str]]:
    """Stop a run, and run it to its end. Return how long it took to stop, and what is wrong."""
    output = f"out{number}"
    running = start(case.folder, output, case.options)
    time.sleep(moment)
    sent = SIGNALS[number % len(SIGNALS)]
    running.send_signal(sent)
    begun = time.monotonic()
    _, err = running.communicate(timeout=120)
    seconds, code = time.monotonic() - begun, running.returncode
    wrong = []
    if code not in (0, 130, -sent) or "Traceback" in err or "terminate" in err:
        wrong.append(f"exits with {code}: {err.strip()}")
    for name, content in contents(case.folder / output).items():
        if not any(part.startswith(".colorize") for part in Path(name).parts) and content != case.whole.get(
            name
        ):
            wrong.append(f"leaves another {name}")
    _, err = (again := start(case.folder, output, case.options)).communicate(timeout=600)
    if again.returncode:
        wrong.append(f"the next run exits with {again.returncode}: {err.strip()}")
    after = contents(case.folder / output)
    different = sorted(name for name in {*after, *case.whole} if after.get(name) != case.whole.get(name))
    left = [str(path) for path in (case.folder / "tmp").glob("*colorize*")]
    if different or left:
        wrong.append(f"the next run ends with other or additional {[*different, *left]}")
    return seconds, wrong


@click.command()
@click.option("--count", default=200, show_default=True, help="Number of signals.")
@click.option("--ray", is_flag=True, help="Stop runs on Ray too.")
@click.option("--seed", default=0, show_default=True)
def main(count: int, ray: bool, seed: int) -> None:
    dice, cases = random.Random(seed), []  # noqa: S311
    with TemporaryDirectory() as base:
        for name in ("photographs", "pages", "films", *(["ray"] if ray else [])):
            folder = Path(base) / name
            folder.mkdir()
            make_inputs(name, folder / "in")
            options = {"films": ("--codec", "ffv1"), "ray": ("--engine", "ray")}.get(name, ())
            begun = time.monotonic()
            if start(folder, "whole", options).wait():
                sys.exit(f"the undisturbed run over {name} fails")
            cases.append(Case(name, options, folder, contents(folder / "whole"), time.monotonic() - begun))
        failures, late, slowest = 0, 0, dict.fromkeys((case.name for case in cases), 0.0)
        for number in range(count):
            case = cases[number // len(SIGNALS) % len(cases)]
            moment = dice.uniform(0, case.seconds)
            seconds, wrong = stop(case, number, moment)
            late += seconds > LATE
            slowest[case.name] = max(slowest[case.name], seconds)
            failures += len(wrong)
            for line in wrong:
                print(f"{case.name}, signal {number} after {moment:.2f} s: {line}", flush=True)
    ends = ", ".join(f"{name} {slowest[name]:.2f} s" for name in slowest)
    print(f"{count} signals, {failures} failures, {late} ends after {LATE:g} s; slowest: {ends}")
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()

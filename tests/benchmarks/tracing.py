"""Measure how much of the program a reader has to follow, and how finely the code is cut up.

    python tests/benchmarks/tracing.py [--json] [--files]

Two runs of `colorize` are traced, each in a new process: one of a small grayscale JPEG, one of a film of two
seconds. Both inputs are made here. The process is traced from its first line to its exit, in all threads.

Figures of a run:

- files: Files of colorize_cli with a function that runs. A file that is only imported does not count: neither
  the body of a module or class, nor a function that runs while one of our modules is being imported.
- functions: Functions and methods that run in those files. Lambdas and comprehensions do not count.
- edges: Pairs of different files, where a function of the first calls one of the second. Frames of libraries
  between the two are passed over: where click calls our command, the caller is whoever called click.
- depth: Most functions and methods of colorize_cli that are on the stack of one thread at the same time.
- opens: How often the source is opened for reading, by Python (audit event `open`) or by PyAV (`av.open`).

Figures of the code, read from its syntax trees:

- classes, public classes: Class statements in colorize_cli; those whose name has no leading underscore.
- private functions: Functions and methods whose name has one leading underscore.
- with one caller: Those of them to whose name its own file refers exactly once.
- short helpers: Those with one caller that have at most six lines, `def` and docstring included.
- modules, lines: Python files of colorize_cli, and their lines.

The package that is measured is the one that Python finds: set PYTHONPATH to measure another checkout.
"""

import ast
import importlib.util
import json
import os
import runpy
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from inspect import CO_OPTIMIZED
from pathlib import Path
from tempfile import TemporaryDirectory
from types import CodeType, FrameType
from typing import Any

import av
import click
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

SHORT = 6
_SIDES = 192, 128
_FRAMES, _RATE = 48, 24


class Tracer:
    """Records which functions of a package run, who calls them, and how often a file is opened."""

    def __init__(self, package: Path, source: Path) -> None:
        self._prefix = f"{package}{os.sep}"
        self._start = str(package / "__main__.py")
        self._source = os.path.realpath(source)
        self._functions: set[CodeType] = set()
        self._edges: set[tuple[str, str]] = set()
        self._depth = 0
        self._opens = 0

    def install(self) -> None:
        """Trace this thread and all that start later, and count what opens the source from now on."""
        sys.addaudithook(self._audit)
        open_ = av.open

        def counting(file: Any, mode: str | None = None, *args: Any, **options: Any) -> Any:
            if mode in (None, "r"):
                self._count(file)
            return open_(file, mode, *args, **options)

        av.open = counting
        threading.settrace(self._trace)
        sys.settrace(self._trace)

    def result(self) -> dict[str, Any]:
        """Return the figures, and the files by name."""
        files = {code.co_filename.removeprefix(self._prefix) for code in self._functions}
        return {
            "files": len(files),
            "functions": len(self._functions),
            "edges": len(self._edges),
            "depth": self._depth,
            "opens": self._opens,
            "names": sorted(files),
        }

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and not (args[2] or 0) & (os.O_WRONLY | os.O_RDWR):
            self._count(args[0])

    def _count(self, file: object) -> None:
        # The rest is descriptors, of files that were opened before, and file objects.
        if isinstance(file, str | bytes | os.PathLike):
            self._opens += os.path.realpath(os.fsdecode(file)) == self._source

    def _trace(self, frame: FrameType, *_: object) -> None:
        """Note a call. The interpreter calls this at every call; None means that lines are not traced."""
        code = frame.f_code
        if not self._is_function(code):
            return
        stack = list(self._stack(frame))
        if any(ours.co_name == "<module>" and ours.co_filename != self._start for ours in stack):
            return  # one of our modules is being imported
        self._functions.add(code)
        self._depth = max(self._depth, sum(map(self._is_function, stack)))
        if len(stack) > 1 and stack[1].co_filename != code.co_filename:
            self._edges.add((stack[1].co_filename, code.co_filename))

    def _is_function(self, code: CodeType) -> bool:
        """True if it is a function or method of ours, and no lambda or comprehension."""
        # Bodies of modules and classes lack the flag; lambdas and comprehensions have names like <lambda>.
        ours = code.co_filename.startswith(self._prefix)
        return ours and bool(code.co_flags & CO_OPTIMIZED) and not code.co_name.startswith("<")

    def _stack(self, frame: FrameType) -> Iterator[CodeType]:
        """Yield the code of our frames, innermost first."""
        above: FrameType | None = frame
        while above is not None:
            if above.f_code.co_filename.startswith(self._prefix):
                yield above.f_code
            above = above.f_back


def package() -> Path:
    """Return the folder of colorize_cli, without importing it."""
    spec = importlib.util.find_spec("colorize_cli")
    assert spec is not None
    assert spec.origin is not None, "colorize_cli is on the path"
    return Path(spec.origin).parent


def make_jpeg(path: Path) -> None:
    """Write a grayscale JPEG: a gradient with noise."""
    width, height = _SIDES
    noise = np.random.default_rng(0).normal(0, 6, (height, width))
    ramp = np.linspace(20, 230, width)[None] + noise
    Image.fromarray(ramp.clip(0, 255).astype(np.uint8)).save(path, quality=90)


def make_video(path: Path) -> None:
    """Write a gray H.264 film without sound: a bright square that moves over a gradient."""
    width, height = _SIDES
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=_RATE)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(_FRAMES):
            luma = np.tile(np.linspace(30, 160, width), (height, 1)).astype(np.uint8)
            luma[40:80, 2 * number : 2 * number + 40] = 220
            frame = av.VideoFrame.from_ndarray(np.dstack([luma] * 3), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def run_traced(source: Path, output: Path) -> dict[str, Any]:
    """Color one file in a new process under `Tracer`. Returns its figures."""
    figures = output.with_name("figures.json")
    line = [sys.executable, __file__, "--inside", str(figures), str(source), str(output)]
    done = subprocess.run(line, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"{source.name} was not colored: {done.stderr.strip()}")
    return json.loads(figures.read_text())


def trace_here(figures: Path, source: Path, output: Path) -> None:
    """Run `colorize` in this process under `Tracer`, and write the figures to a file."""
    from colorize_cli.core import interrupt

    interrupt.leave = sys.exit  # which comes back here
    tracer = Tracer(package(), source)
    sys.argv = ["colorize", "--device", "cpu", str(source), str(output)]
    tracer.install()
    try:
        runpy.run_module("colorize_cli", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if ended.code:
            raise
    finally:
        sys.settrace(None)
    assert output.is_file()
    figures.write_text(json.dumps(tracer.result()))


def measure_code(folder: Path) -> dict[str, int]:
    """Return the figures of the code of a package."""
    found: Counter[str] = Counter()
    for path in folder.rglob("*.py"):
        text = path.read_text()
        nodes = list(ast.walk(ast.parse(text)))
        used = Counter(
            node.id if isinstance(node, ast.Name) else node.attr
            for node in nodes
            if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load)
        )
        found["modules"] += 1
        found["lines"] += len(text.splitlines())
        for node in nodes:
            if isinstance(node, ast.ClassDef):
                found["classes"] += 1
                found["public classes"] += not node.name.startswith("_")
            elif isinstance(node, ast.FunctionDef) and node.name[0] == "_" and node.name[:2] != "__":
                assert node.end_lineno is not None
                once = used[node.name] == 1
                found["private functions"] += 1
                found["with one caller"] += once
                found["short helpers"] += once and node.end_lineno - node.lineno < SHORT
    order = (
        "modules",
        "lines",
        "classes",
        "public classes",
        "private functions",
        "with one caller",
        "short helpers",
    )
    return {name: found[name] for name in order}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with the names of the files.")
@click.option("--files", "with_files", is_flag=True, help="Also list the files that each run enters.")
@click.option("--inside", nargs=3, type=click.Path(path_type=Path), hidden=True)
def main(as_json: bool, with_files: bool, inside: tuple[Path, Path, Path] | None) -> None:
    """Trace `colorize` on a small JPEG and a short film, and count what the code consists of.

    \b
    Of each run, from the command line to the finished file:
      files      files of colorize_cli with a function that runs; imports do not count
      functions  functions and methods that run
      edges      pairs of files, where the first calls the second
      depth      most functions of colorize_cli on one stack
      opens      how often the source is opened for reading

    \b
    Of the code of colorize_cli:
      modules, lines     Python files, and their lines
      classes            class statements; those without a leading underscore
      private functions  functions and methods with a leading underscore
      with one caller    those of them that their file refers to once
      short helpers      those with one caller and at most 6 lines

    Takes about 10 seconds and writes nothing but temporary files. Set PYTHONPATH to measure another checkout.
    """
    if inside is not None:
        trace_here(*inside)
        return
    folder = package()
    with TemporaryDirectory() as place:
        jpeg, video = Path(place, "a.jpg"), Path(place, "a.mp4")
        make_jpeg(jpeg)
        make_video(video)
        runs = {
            "JPEG": run_traced(jpeg, Path(place, "b.jpg")),
            "film": run_traced(video, Path(place, "b.mp4")),
        }
    code = measure_code(folder)
    if as_json:
        click.echo(json.dumps({"package": str(folder), "runs": runs, "code": code}))
        return
    console = Console()
    console.print(f"{folder}")
    names = ("files", "functions", "edges", "depth", "opens")
    table = Table("one", *names)
    for kind, figures in runs.items():
        table.add_row(kind, *(str(figures[name]) for name in names))
    console.print(table)
    table = Table(*code)
    table.add_row(*map(str, code.values()))
    console.print(table)
    if with_files:
        for kind, figures in runs.items():
            console.print(f"{kind}: {', '.join(figures['names'])}")


if __name__ == "__main__":
    main()

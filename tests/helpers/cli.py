"""Runs of the command in this process or another one, and their outputs."""

import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

from colorize_cli.cli.run import command
from colorize_cli.storage import filesystem


def invoke(*arguments: object):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def process(*arguments: object, **options) -> subprocess.Popen:
    line = [sys.executable, "-m", "colorize_cli", *map(str, arguments)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def finish(*arguments: object, **options) -> tuple[int, str, str]:
    running = process(*arguments, **options)
    out, err = running.communicate(timeout=60)
    return running.returncode, out, err


def contents(folder: Path) -> dict[str, bytes]:
    """Return files by name, without the manifest."""
    files = [p.relative_to(folder) for p in sorted(folder.rglob("*")) if p.is_file()]
    return {
        str(name): (folder / name).read_bytes() for name in files if name.parts[0] != filesystem.DIRECTORY
    }


def piped(data: bytes, *arguments: object) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "colorize_cli", *map(str, arguments)]
    return subprocess.run(line, input=data, capture_output=True, timeout=60, check=False)

"""Peak memory of processes that read what has no end, or one line of it."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.manifests import files, made

MEASURED = """
import resource, sys
from pathlib import Path
from colorize_cli.core.errors import ColorizeError
from colorize_cli.core.jobs import Job, LocalFiles
from colorize_cli.storage import discovery, manifest_local, stdio

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10

before = peak()
try:
    print({call})
except ColorizeError as error:
    print(error)
print(peak() - before)
"""


def measured(call: str, *arguments: object, **options) -> tuple[str, int]:
    """Evaluate an expression in a new process. Return what it prints, and by how many MiB memory grew."""
    line = [sys.executable, "-c", MEASURED.format(call=call), *map(str, arguments)]
    text, mebibytes = subprocess.check_output(line, text=True, **options).splitlines()
    return text, int(mebibytes)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            "setattr(stdio, '_MOST_PICTURE', 1 << 25) or stdio.read_stdin()",
            "standard input is longer than 32",
        ),
        (
            "setattr(discovery, '_MOST_LIST', 1 << 25) or discovery.read_list(sys.stdin.buffer, nul=True)",
            "the list of files is longer than 32",
        ),
    ],
)
def test_memory_for_a_stream_without_an_end_is_bounded(call, text):
    with Path("/dev/zero").open("rb") as zeros:
        said, mebibytes = measured(call, stdin=zeros)
    assert said.startswith(text)
    assert mebibytes <= 3 * 32


def test_memory_for_a_manifest_of_one_long_line_is_bounded(tmp_path):
    source, output = tmp_path / "a.png", tmp_path / "out" / "a.png"
    source.write_bytes(b"gray")
    made(files(source, output), tmp_path / "out")
    with (tmp_path / "out" / ".colorize" / "b.jsonl").open("wb") as file:
        file.truncate(200 << 20)  # takes no space on the disk
    call = (
        "manifest_local.LocalManifest(Path(sys.argv[1])).state("
        "LocalFiles(Job(*map(Path, sys.argv[2:])), *map(Path, sys.argv[2:])), 'r').value"
    )
    said, mebibytes = measured(call, tmp_path / "out", source, output)
    assert said == "up to date"
    assert mebibytes <= 40

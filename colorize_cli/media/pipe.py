"""Standard input and output in place of files."""

import os
import sys

from colorize_cli.errors import ReadError, WriteError


def read_stdin() -> bytes:
    """All that comes from standard input.

    Raises:
        ReadError: It is closed, a terminal, or cannot be read.
    """
    if sys.stdin is None:
        raise ReadError("standard input is closed")
    if sys.stdin.isatty():
        raise ReadError("standard input is a terminal; pipe a picture into it")
    try:
        return sys.stdin.buffer.read()
    except OSError as error:
        raise ReadError(f"cannot read standard input: {error.strerror}") from error


def write_stdout(data: bytes) -> None:
    """Writes to standard output.

    Raises:
        WriteError: It is closed, a terminal, or takes no more.
    """
    if sys.stdout is None:
        raise WriteError("standard output is closed")
    if sys.stdout.isatty():
        raise WriteError("standard output is a terminal; send it to a file or a program")
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        # What is left in the buffer would be tried again, and complained of, when the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise WriteError(f"cannot write to standard output: {error.strerror}") from error

"""Standard input and output in place of files."""

import io
import os
import sys
from typing import BinaryIO

from colorize_cli.core.errors import ReadError, WriteError

# How films begin, and libavformat's names of them.
_VIDEOS = {b"YUV4MPEG2 ": "yuv4mpegpipe", b"\x1aE\xdf\xa3": "matroska"}
_LONGEST = 16


def read_stdin() -> bytes:
    """All that comes from standard input.

    Raises:
        ReadError: It is closed, a terminal, or cannot be read.
    """
    try:
        return stdin().read()
    except OSError as error:
        raise ReadError(f"cannot read standard input: {error.strerror}") from error


def video_format() -> str | None:
    """libavformat's name of the kind of film that comes from standard input; None if it is no film.

    Raises:
        ReadError: As `read_stdin`.
    """
    begin = _begin(stdin())
    return next((name for magic, name in _VIDEOS.items() if begin.startswith(magic)), None)


def stdin() -> BinaryIO:
    """Standard input, to read from.

    Raises:
        ReadError: It is closed or a terminal.
    """
    if sys.stdin is None:
        raise ReadError("standard input is closed")
    if sys.stdin.isatty():
        raise ReadError("standard input is a terminal; pipe a picture into it")
    return sys.stdin.buffer


def stdout() -> BinaryIO:
    """Standard output, to write to.

    Raises:
        WriteError: It is closed or a terminal.
    """
    if sys.stdout is None:
        raise WriteError("standard output is closed")
    if sys.stdout.isatty():
        raise WriteError("standard output is a terminal; send it to a file or a program")
    return sys.stdout.buffer


def _begin(file: BinaryIO) -> bytes:
    """What comes first, which remains to be read."""
    try:
        if isinstance(file, io.BufferedReader):
            return file.peek(_LONGEST)[:_LONGEST]
        begin = file.read(_LONGEST)
        file.seek(-len(begin), os.SEEK_CUR)
    except OSError as error:
        raise ReadError(f"cannot read standard input: {error.strerror}") from error
    return begin


def write_stdout(data: bytes) -> None:
    """Writes to standard output.

    Raises:
        WriteError: It is closed, a terminal, or takes no more.
    """
    file = stdout()
    try:
        file.write(data)
        file.flush()
    except OSError as error:
        # What is left in the buffer would be tried again, and complained of, when the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise WriteError(f"cannot write to standard output: {error.strerror}") from error

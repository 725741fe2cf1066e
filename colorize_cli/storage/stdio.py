"""Standard input and output in place of files."""

import contextlib
import io
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from colorize_cli.core import formats
from colorize_cli.core.errors import ReadError, WriteError
from colorize_cli.core.location import STREAM, Location

# libavformat's names of the video formats that are recognized, with what they begin with.
_VIDEOS = (
    ("yuv4mpegpipe", re.compile(rb"YUV4MPEG2 ")),
    ("matroska", re.compile(rb"\x1aE\xdf\xa3")),
    # Pictures in HEIC and AVIF begin like MP4, with other brands.
    ("mov", re.compile(rb"....(ftyp(?!hei|hev|mif1|msf1|avi[fs])|moov|mdat|wide|free|skip)", re.DOTALL)),
    ("avi", re.compile(rb"RIFF....AVI ", re.DOTALL)),
    ("mpeg", re.compile(rb"\x00\x00\x01\xba")),
)
_LONGEST = 16  # bytes, at least as many as each of them needs
_SOUGHT = ("mov",)  # formats that cannot be read from beginning to end, as the index may be at the end
_BLOCK = 1 << 20  # bytes
_MOST_PICTURE = 1 << 30  # bytes
_SPARE = 64 << 20  # bytes that stay free where standard input is copied to


class _Output(io.BufferedWriter):
    """Standard output, from the first failed write on a sink, so that nothing fails again at exit.

    The file below is not written in Python: an interrupt there would lead to the data being written twice.
    """

    def write(self, data: Any) -> int:
        """Write bytes. Raises WriteError on the first failure."""
        with self._plain():
            return super().write(data)

    def flush(self) -> None:
        """Write what is buffered. Raises WriteError on the first failure."""
        with self._plain():
            super().flush()

    def seek(self, position: int, whence: int = os.SEEK_SET, /) -> int:
        """Write what is buffered, and move. Raises WriteError on the first failure of writing."""
        self.flush()
        return super().seek(position, whence)

    @contextlib.contextmanager
    def _plain(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            raise WriteError(f"cannot write to standard output: {error.strerror}") from error


class _Messages(io.FileIO):
    """Standard error, whose failures are ignored: they must not stop a run."""

    def write(self, data: Any) -> int:
        """Write bytes, or lose them if the disk is full or the reader is gone."""
        with contextlib.suppress(OSError):
            return super().write(data) or 0
        return memoryview(data).nbytes


def protect() -> None:
    """Reserve stdout for requested data, and make failures of both streams harmless or plain.

    The output of native libraries to stdout goes to stderr. Writing to `sys.stdout` raises WriteError where
    the system reports an error.
    """
    if sys.stdout is not None:  # None: closed by the parent process
        sys.stdout.flush()
        data = os.dup(1)
        os.dup2(2 if sys.stderr is not None else os.open(os.devnull, os.O_WRONLY), 1)
        output = _Output(io.FileIO(data, "w"))
        sys.stdout = io.TextIOWrapper(output, sys.stdout.encoding, "surrogateescape")
    if sys.stderr is not None:
        messages = io.BufferedWriter(_Messages(2, "w", closefd=False))
        sys.stderr = io.TextIOWrapper(messages, sys.stderr.encoding, "backslashreplace", line_buffering=True)


def read_stdin() -> bytes:
    """Read standard input to its end.

    Raises:
        ReadError: It is closed, is a terminal, is too long for memory, or cannot be read.
    """
    try:
        content = read_all(stdin(), _MOST_PICTURE)
    except OSError as error:
        raise ReadError(f"cannot read standard input: {error.strerror}") from error
    if content is None:
        raise ReadError(
            f"standard input is longer than {_MOST_PICTURE >> 20} MiB; give the picture as a file"
        )
    return content


def read_all(stream: BinaryIO, most: int) -> bytes | None:
    """Read a stream to its end; return None if that is not reached after `most` bytes."""
    content = io.BytesIO()
    while piece := stream.read(_BLOCK):
        content.write(piece)
        if content.tell() > most:
            return None
    return content.getvalue()


def video_format() -> str | None:
    """Return libavformat's name of the video format on standard input; None if it is not a video.

    Raises:
        ReadError: As in `read_stdin`.
    """
    begin = first_bytes()
    return next((name for name, magic in _VIDEOS if magic.match(begin)), None)


def is_video(source: Location) -> bool:
    """Return True if a source is a video. Standard input is recognized by its first bytes."""
    if source != STREAM:
        return formats.is_video(source)
    try:
        return video_format() is not None
    except ReadError:  # reading it as an image will report the error
        return False


def must_spool() -> bool:
    """Return True if standard input is a video that cannot be read as a stream."""
    return video_format() in _SOUGHT and not stdin().seekable()


@contextlib.contextmanager
def spooled() -> Iterator[BinaryIO]:
    """Copy standard input to an unnamed file in TMPDIR, and yield that at its beginning.

    Raises:
        ReadError: Standard input cannot be read, or there is no room for it.
    """
    folder = tempfile.gettempdir()
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            while block := stdin().read(_BLOCK):
                if shutil.disk_usage(folder).free < len(block) + _SPARE:
                    raise ReadError(
                        f"{folder} has no room for standard input after {file.tell() >> 20} MiB;"
                        " set TMPDIR to another directory, or give the film as a file"
                    )
                file.write(block)
            file.seek(0)
        except OSError as error:
            raise ReadError(f"cannot copy standard input to {folder}: {error.strerror}") from error
        yield file


def stdin() -> BinaryIO:
    """Return standard input as a binary stream.

    Raises:
        ReadError: It is closed or is a terminal.
    """
    if sys.stdin is None:
        raise ReadError("standard input is closed")
    if sys.stdin.isatty():
        raise ReadError("standard input is a terminal; pipe a picture or video into it")
    return sys.stdin.buffer


def stdout() -> BinaryIO:
    """Return standard output as a binary stream.

    Raises:
        WriteError: It is closed or is a terminal.
    """
    if sys.stdout is None:
        raise WriteError("standard output is closed")
    if sys.stdout.isatty():
        raise WriteError("standard output is a terminal; redirect it to a file or a program")
    return sys.stdout.buffer


def first_bytes() -> bytes:
    """Return the first bytes of standard input without consuming them.

    Raises:
        ReadError: As in `read_stdin`.
    """
    file = stdin()
    try:
        if isinstance(file, io.BufferedReader):
            return file.peek(_LONGEST)[:_LONGEST]
        begin = file.read(_LONGEST)
        file.seek(-len(begin), os.SEEK_CUR)
    except OSError as error:
        raise ReadError(f"cannot read standard input: {error.strerror}") from error
    return begin


def write_stdout(data: bytes) -> None:
    """Write to standard output.

    Raises:
        WriteError: It is closed, is a terminal, or cannot be written to.
    """
    file = stdout()
    file.write(data)
    file.flush()

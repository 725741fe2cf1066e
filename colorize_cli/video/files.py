"""Opening video files. No other module hands a path to libavformat.

libavformat takes a path as a URL (`http:...`, `concat:...`), and some of its formats are scripts that name
other files or hosts. So paths are made absolute, and protocols and formats are limited: only the file itself
is read.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import av
from av.container import InputContainer, OutputContainer

from colorize_cli.core.errors import ReadError, one_line

SEGMENT_FORMAT = "nut"  # supports every time base and codec
_DEMUXERS = (
    "asf",
    "avi",
    "dv",
    "flv",
    "matroska",
    "mov",
    "mpeg",
    "mpegts",
    "mpegvideo",
    "mxf",
    "ogg",
    "yuv4mpegpipe",
    SEGMENT_FORMAT,
)
_LIMITS = {"format_whitelist": ",".join(_DEMUXERS), "protocol_whitelist": "file,pipe"}


def open_source(source: Path | BinaryIO, format_: str | None = None) -> InputContainer:
    """Open a video for reading.

    Args:
        source: The path or a readable stream.
        format_: libavformat's name of the format; None to detect it.

    Raises:
        ReadError: It cannot be opened, or is not in one of the supported formats.
    """
    try:
        return av.open(_address(source), "r", format=format_, container_options=_LIMITS)
    except av.error.InvalidDataError as error:
        raise ReadError("damaged, or not a video: its header or index cannot be read") from error
    except av.error.ArgumentError as error:
        raise ReadError("not a video in one of the supported formats") from error
    except av.error.FFmpegError as error:
        raise ReadError(one_line(error.strerror or error)) from error


def open_output(output: Path | BinaryIO, format_: str, options: Mapping[str, str]) -> OutputContainer:
    """Open a video for writing.

    Args:
        output: The path or a writable stream.
        format_: libavformat's name of the format.
        options: Options for the muxer.

    Raises:
        OSError: It cannot be opened.
    """
    return av.open(_address(output), "w", format=format_, options=dict(options))


def _address(file: Path | BinaryIO) -> str | BinaryIO:
    return str(file.absolute()) if isinstance(file, Path) else file

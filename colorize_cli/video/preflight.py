"""A check before the first frame is colorized: the encoder and the container take the video as it will be."""

import contextlib
import io
from typing import Any

import av

from colorize_cli.core.errors import WriteError
from colorize_cli.core.settings import VideoSettings
from colorize_cli.video import encoder, files, muxer, pixel_format
from colorize_cli.video.encoder import CONTAINERS, Encoding
from colorize_cli.video.reader import VideoReader

_FULL_RANGE = 2  # AVCOL_RANGE_JPEG in libavutil


def check(video: VideoReader, kind: str, encoding: Encoding, asked: VideoSettings) -> tuple[str, ...]:
    """Encode one gray frame, and write the output's header to memory.

    Args:
        video: The open source, at its first frame.
        kind: Extension of the output's container format, with the dot.
        encoding: The encoding of the output.
        asked: The requested encoder and its options.

    Returns:
        Lines for the user about what differs from the source.

    Raises:
        WriteError: The encoder or the container does not accept the video, an option, or another stream.
    """
    segment = _gray_frame(video, encoding, asked)
    container, notes = CONTAINERS[kind], list(encoding.notes)
    if video.is_rgb:
        notes.append(f"its RGB is stored as {encoding.layout.name}, in which gray keeps its codes")
    options = {name: value for name, value in container.muxing.items() if name != "movflags"}
    with (
        files.open_source(segment) as encoded,
        files.open_output(io.BytesIO(), container.format, options) as out,
    ):
        add_video = muxer.template_adder(encoded, video.info, out, kind)
        streams = muxer.Streams(video.container, out, video.info, kind, add_video, {}, audio=asked.audio)
        streams.describe(chapters=not asked.trial)
        notes += streams.notes
        with contextlib.suppress(av.error.FFmpegError):  # some formats are incomplete without sound
            out.close()
    if video.info.coding.full and not _keeps_full_range(video, kind, segment, options):
        raise WriteError(
            f"{kind} with {encoding.codec} cannot say that its luma has full range; choose another codec or"
            " container"
        )
    return tuple(notes)


def _keeps_full_range(video: VideoReader, kind: str, segment: io.BytesIO, options: dict[str, str]) -> bool:
    """Write the segment as a file of its own to memory. Return True if it reads as full-range video."""
    segment.seek(0)
    output, format_ = io.BytesIO(), CONTAINERS[kind].format
    with files.open_source(segment) as encoded, files.open_output(output, format_, options) as out:
        target: Any = muxer.template_adder(encoded, video.info, out, kind)(video.stream)
        for packet in encoded.demux(video=0):
            if packet.size:
                packet.stream = target
                out.mux_one(packet)
    output.seek(0)
    with files.open_source(output) as written:
        frame = next(written.decode(video=0))
    return int(frame.color_range) == _FULL_RANGE or frame.format.name.startswith("yuvj")


def _gray_frame(video: VideoReader, encoding: Encoding, asked: VideoSettings) -> io.BytesIO:
    """Return a segment with one gray frame."""
    segment = io.BytesIO()
    frame = av.VideoFrame(video.info.width, video.info.height, encoding.layout.name)
    for plane in range(3):
        pixel_format.plane_of(frame, plane)[:] = 2 ** (encoding.layout.bits - 1)
    frame.pts = 0
    pixel_format.tag(frame, video.first)
    try:
        with encoder.segment(segment, video.info, encoding, video.first) as gray:
            gray.add(frame)
    except WriteError as error:
        if asked.codec is None or asked.crf is not None or asked.preset is not None:
            raise
        pipe = f"colorize --codec ffv1 INPUT - | ffmpeg -i - -c:v {asked.codec} OUTPUT"
        raise WriteError(f"{error}; if your ffmpeg can: {pipe}") from error
    segment.seek(0)
    return segment

"""A check before the first frame is colorized: the encoder and the container take the video as it will be."""

import contextlib
import io
from fractions import Fraction
from typing import Any

import av

from colorize_cli.core.errors import WriteError
from colorize_cli.core.settings import VideoSettings
from colorize_cli.video import aspect, encoder, files, muxer, pixel_format, reader
from colorize_cli.video.encoder import CONTAINERS, Encoding
from colorize_cli.video.reader import VideoReader

_NEAR = Fraction(1, 100)


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
    segment, unknown = _gray_frame(video, encoding, asked)
    container, notes, info = CONTAINERS[kind], list(encoding.notes), video.info
    if unknown:
        notes.append(f"encoded without {' and '.join(unknown)}, which {encoding.codec} lacks")
    if video.is_rgb:
        notes.append(f"its RGB is stored as {encoding.layout.name}, in which gray keeps its codes")
    options = {name: value for name, value in container.muxing.items() if name != "movflags"}
    with (
        files.open_source(segment) as encoded,
        files.open_output(io.BytesIO(), container.format, options) as out,
    ):
        add_video = muxer.template_adder(encoded, info, out, kind)
        streams = muxer.Streams(video.container, out, info, kind, add_video, {}, audio=asked.audio)
        streams.describe(info.time_range(asked.start, asked.duration))
        notes += streams.notes
        with contextlib.suppress(av.error.FFmpegError):  # some formats are incomplete without sound
            out.close()
    if info.coding.full or video.is_interlaced or info.aspect != 1:
        written = _written(video, kind, segment, options)
        if info.coding.full and not written.info.coding.full:
            raise WriteError(
                f"{kind} with {encoding.codec} cannot say that its luma has full range; choose another codec"
                " or container"
            )
        if video.is_interlaced and not written.is_interlaced:
            notes.append(f"it is interlaced, which {kind} with {encoding.codec} does not say")
        shown = info.aspect if aspect.is_outside(kind, info) else written.info.aspect
        if abs(shown / info.aspect - 1) > _NEAR:
            notes.append(f"its pixel aspect of {_ratio(info.aspect)} is stored as {_ratio(shown)}")
    return tuple(notes)


def _ratio(value: Fraction) -> str:
    return f"{value.numerator}:{value.denominator}"


def _written(video: VideoReader, kind: str, segment: io.BytesIO, options: dict[str, str]) -> VideoReader:
    """Write the segment as a file of its own to memory. Return its reader."""
    segment.seek(0)
    output, format_ = io.BytesIO(), CONTAINERS[kind].format
    with files.open_source(segment) as encoded, files.open_output(output, format_, options) as out:
        target: Any = muxer.template_adder(encoded, video.info, out, kind)(video.stream)
        for packet in encoded.demux(video=0):
            if packet.size:
                packet.stream = target
                out.mux_one(packet)
    output.seek(0)
    with reader.opened(output) as written:
        return written


def _gray_frame(video: VideoReader, encoding: Encoding, asked: VideoSettings) -> tuple[io.BytesIO, list[str]]:
    """Return a segment with one gray frame, and the requested options that the encoder lacks."""
    segment = io.BytesIO()
    # Two conversions make a copy in any case, which has the properties of the first frame.
    frame = video.first.reformat(format="gray").reformat(format=encoding.layout.name)
    for plane in range(3):
        pixel_format.plane_of(frame, plane)[:] = 2 ** (encoding.layout.bits - 1)
    frame.pts = 0
    pixel_format.tag(frame, video.first)
    try:
        with encoder.segment(segment, video.info, encoding, video.first) as gray:
            gray.add(frame)
            unknown = [f"--{name}" for name in gray.stream.codec_context.options]
    except WriteError as error:
        if asked.codec is None or asked.crf is not None or asked.preset is not None:
            raise
        pipe = f"colorize --codec ffv1 INPUT - | ffmpeg -i - -c:v {asked.codec} OUTPUT"
        raise WriteError(f"{error}; if your ffmpeg can: {pipe}") from error
    segment.seek(0)
    return segment, unknown

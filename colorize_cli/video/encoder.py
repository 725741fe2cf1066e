"""Coloured frames to encoded film: which encoder, asked for what."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import av
from av.codec.context import Flags
from av.container import OutputContainer
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from colorize_cli.core.errors import UsageError, WriteError, one_line
from colorize_cli.core.settings import VideoSettings
from colorize_cli.video.pixel_format import Layout, VideoInfo, planar_name, tag

_SEGMENT_FORMAT = "nut"  # keeps any time base, and any codec
# Most encoders decide in other ways for other numbers of threads, so that this is not the machine's number of
# cores: stretches that are encoded on several are to be the same. On two cores it takes no longer than three.
_THREADS = 8


@dataclass(frozen=True)
class Container:
    """A kind of film file.

    Attributes:
        format: libavformat's name of it.
        codec: The encoder that is used unless another is asked for.
        options: What to ask of that encoder.
        steady_rate: Whether it has one frame rate instead of time stamps.
        muxing: What to ask of libavformat.
    """

    format: str
    codec: str
    options: Mapping[str, str] = field(default_factory=dict)
    steady_rate: bool = False
    muxing: Mapping[str, str] = field(default_factory=dict)


_H264 = {"crf": "18", "preset": "medium"}
# Qualities about as high as that, by encoders whose scale is another.
_VP9 = {"crf": "20", "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"}
_INDEX_FIRST = {"movflags": "+faststart"}
_QUANTIZER = {"qmin": "2", "qmax": "2"}
CONTAINERS: dict[str, Container] = {
    ".mp4": Container("mp4", "libx264", _H264, muxing=_INDEX_FIRST),
    ".m4v": Container("mp4", "libx264", _H264, muxing=_INDEX_FIRST),
    ".mov": Container("mov", "libx264", _H264, muxing=_INDEX_FIRST),
    ".mkv": Container("matroska", "libx264", _H264),
    ".webm": Container("webm", "libvpx-vp9", _VP9),
    ".m2ts": Container("mpegts", "libx264", _H264),
    ".mts": Container("mpegts", "libx264", _H264),
    ".ts": Container("mpegts", "libx264", _H264),
    ".avi": Container("avi", "mpeg4", _QUANTIZER, steady_rate=True),
    ".y4m": Container("yuv4mpegpipe", "rawvideo", steady_rate=True, muxing={"strict": "-1"}),
    ".mpg": Container("mpeg", "mpeg2video", _QUANTIZER, steady_rate=True),
    ".mpeg": Container("mpeg", "mpeg2video", _QUANTIZER, steady_rate=True),
}


@dataclass(frozen=True)
class Encoding:
    """How a film is encoded.

    Attributes:
        codec: libavcodec's name of the encoder.
        layout: Of the frames that it is given.
        options: What to ask of it.
        steady_rate: Whether frames follow each other at one rate, whatever their time stamps.
    """

    codec: str
    layout: Layout
    options: Mapping[str, str]
    steady_rate: bool = False


def choose(suffix: str, info: VideoInfo, asked: VideoSettings) -> Encoding:
    """The encoding of a film that is like `info`, for a kind of file.

    Args:
        suffix: Ending of the file's name, in lower case.
        info: What its frames are like.
        asked: What the user asked for.

    Raises:
        UsageError: There is no such encoder or format, or it cannot keep the luma.
    """
    container = CONTAINERS[suffix]
    name = asked.codec or container.codec
    try:
        encoder = av.codec.Codec(name, "w")
    except ValueError as error:
        raise UsageError(f"there is no encoder {name!r} here") from error
    options = dict(container.options) if name == container.codec else {}
    if asked.codec in ("libx264", "libx265"):
        options = dict(_H264)
    if asked.crf is not None:
        options["crf"] = str(asked.crf)
    if asked.preset is not None:
        options["preset"] = asked.preset
    known = [format_.name for format_ in encoder.video_formats or ()]
    layout = _layout(name, known, info, asked.pixel_format)
    return Encoding(name, layout, options, container.steady_rate)


def _layout(codec: str, known: list[str], info: VideoInfo, pixel_format: str | None) -> Layout:
    own = info.layout
    if pixel_format is not None:
        asked = Layout.of(pixel_format)
        if asked is None or asked.reduced is None or (known and pixel_format not in known):
            raise UsageError(f"{codec} takes no frames of {pixel_format}; it knows {', '.join(known)}")
        if asked.bits != own.bits:
            raise UsageError(f"{pixel_format} would change the {own.bits} bits of the film's luma")
        return asked
    wanted = [own.reduced or (2, 2), (2, 2), (2, 1), (1, 1)]
    finer = [r for r in wanted if r == wanted[0] or (r[0] <= wanted[0][0] and r[1] <= wanted[0][1])]
    for across, down in finer:
        # Encoders of reduced chroma take whole cells of it only, but for those that store any size.
        if codec in _WHOLE_CELLS and (info.width % across or info.height % down):
            continue
        for family in ("yuvj", "yuv") if own.name.startswith("yuvj") else ("yuv",):
            name = planar_name((across, down), own.bits, family)
            if not known or name in known:  # some take any
                return Layout(name, own.bits, (across, down))
    raise UsageError(f"{codec} takes no frames like those of {own.name}; choose another codec")


_WHOLE_CELLS = frozenset({"libx264", "libx265", "h264_nvenc", "hevc_nvenc"})


class Encoder:
    """Encodes frames into an open container.

    Attributes:
        stream: Where they go.
    """

    def __init__(
        self, container: OutputContainer, info: VideoInfo, encoding: Encoding, interlaced: bool
    ) -> None:
        """Adds a stream to the container.

        Raises:
            WriteError: The encoder does not take what it is asked to.
        """
        self._container, self._info, self._encoding = container, info, encoding
        try:
            self.stream = self._begin(interlaced)
        except (av.error.FFmpegError, ValueError) as error:
            raise WriteError(f"{encoding.codec} cannot encode it: {one_line(error)}") from error

    def _begin(self, interlaced: bool) -> VideoStream:
        info, encoding = self._info, self._encoding
        stream: VideoStream = self._container.add_stream(encoding.codec, rate=info.rate)  # type: ignore[assignment]
        context = stream.codec_context
        context.width, context.height = info.width, info.height
        context.pix_fmt = encoding.layout.name
        context.time_base = 1 / info.rate if encoding.steady_rate else info.time_base
        context.sample_aspect_ratio = info.aspect
        context.options = dict(encoding.options)
        context.thread_type, context.thread_count = "AUTO", _THREADS
        if interlaced:
            context.flags |= Flags.interlaced_dct | Flags.interlaced_me
        stream.time_base = info.time_base
        return stream

    def add(self, frame: VideoFrame) -> None:
        """Encodes the next frame, by the time base of the picture.

        Raises:
            WriteError: It cannot be encoded.
        """
        if not self.stream.codec_context.is_open:
            tag(self.stream.codec_context, frame)
        frame.pict_type = PictureType.NONE
        frame.time_base = self._info.time_base
        self._mux(frame)

    def _mux(self, frame: VideoFrame | None) -> None:
        try:
            packets = self.stream.encode(frame)
        except av.error.FFmpegError as error:
            why = one_line(error.strerror or error)
            raise WriteError(f"{self._encoding.codec} cannot encode it: {why}") from error
        self._container.mux(packets)

    def finish(self) -> None:
        """Writes what the encoder still holds.

        Raises:
            WriteError: It cannot be encoded.
        """
        self._mux(None)


@contextlib.contextmanager
def segment(path: Path, info: VideoInfo, encoding: Encoding, interlaced: bool) -> Iterator[Encoder]:
    """An encoder into a file that is to be joined with others; the file is complete when the block ends.

    Raises:
        WriteError: As the encoder.
        OSError: The file cannot be written.
    """
    with av.open(str(path), "w", format=_SEGMENT_FORMAT) as container:
        encoder = Encoder(container, info, encoding, interlaced)
        yield encoder
        encoder.finish()

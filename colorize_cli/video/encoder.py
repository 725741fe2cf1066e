"""Encoding colorized frames: choice of encoder and options, and the encoder itself."""

import contextlib
import os
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
from colorize_cli.video import files
from colorize_cli.video.pixel_format import Layout, VideoInfo, planar_name, tag

# Fixed, because the output of most encoders depends on the number of threads: segments encoded on different
# machines must be equal. On two cores it is as fast as three threads.
_THREADS = 8


@dataclass(frozen=True)
class Container:
    """A container format.

    Attributes:
        format: libavformat's name of the format.
        codec: Default encoder.
        options: Options for the default encoder.
        upright: True if the format cannot say that frames are displayed turned or mirrored.
        steady_rate: True if the format has a constant frame rate instead of time stamps.
        gaps: True if frames may be missing nevertheless.
        muxing: Options for libavformat's muxer.
    """

    format: str
    codec: str
    options: Mapping[str, str] = field(default_factory=dict)
    upright: bool = False
    steady_rate: bool = False
    gaps: bool = True
    muxing: Mapping[str, str] = field(default_factory=dict)


# Some encoders print to stderr by themselves, unless this environment variable is set.
_LOG = "COLORIZE_ENCODER_LOG"
_SILENT = {"libx265": {"x265-params": "log-level=none"}}
_H264 = {"crf": "18", "preset": "medium"}
# About the same quality, for encoders with other scales.
_VP9 = {"crf": "20", "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"}
_INDEX_FIRST = {"movflags": "+faststart"}
_QUANTIZER = {"qmin": "2", "qmax": "2"}
# By file name suffix; the values of `core.formats.VIDEOS` are the same suffixes without PyAV.
CONTAINERS: dict[str, Container] = {
    ".3gp": Container("3gp", "libx264", _H264, muxing=_INDEX_FIRST),
    ".flv": Container(
        "flv", "libx264", _H264 | {"bf": "0"}, upright=True
    ),  # with B-frames it would begin later
    ".mp4": Container("mp4", "libx264", _H264, muxing=_INDEX_FIRST),
    ".m4v": Container("mp4", "libx264", _H264, muxing=_INDEX_FIRST),
    ".mov": Container("mov", "libx264", _H264, muxing=_INDEX_FIRST),
    ".mkv": Container("matroska", "libx264", _H264),
    ".webm": Container("webm", "libvpx-vp9", _VP9),
    ".m2ts": Container("mpegts", "libx264", _H264, upright=True),
    ".mts": Container("mpegts", "libx264", _H264, upright=True),
    ".ts": Container("mpegts", "libx264", _H264, upright=True),
    ".avi": Container("avi", "mpeg4", _QUANTIZER, upright=True, steady_rate=True),
    ".wmv": Container("asf", "wmv2", _QUANTIZER, upright=True),
    ".y4m": Container(
        "yuv4mpegpipe", "rawvideo", upright=True, steady_rate=True, gaps=False, muxing={"strict": "-1"}
    ),
    ".mpg": Container("mpeg", "mpeg2video", _QUANTIZER, upright=True, steady_rate=True, gaps=False),
    ".mpeg": Container("mpeg", "mpeg2video", _QUANTIZER, upright=True, steady_rate=True, gaps=False),
}


@dataclass(frozen=True)
class Encoding:
    """How to encode a video.

    Attributes:
        codec: libavcodec's name of the encoder.
        layout: Layout of the frames to encode.
        options: Options for the encoder.
        steady_rate: True to encode frames at a constant rate, whatever their time stamps.
        gaps: False to repeat frames where that rate requires it.
    """

    codec: str
    layout: Layout
    options: Mapping[str, str]
    steady_rate: bool = False
    gaps: bool = True


def choose(suffix: str, info: VideoInfo, asked: VideoSettings) -> Encoding:
    """Choose the encoding for a video and a container format.

    Args:
        suffix: Extension of the output file, in lower case.
        info: Properties of the source's frames.
        asked: The requested codec, quality, preset and pixel format.

    Raises:
        UsageError: The encoder or pixel format does not exist, or it cannot preserve luma.
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
    if not os.environ.get(_LOG):
        os.environ.setdefault("SVT_LOG", "1")  # errors only
        options |= _SILENT.get(name, {})
    known = [format_.name for format_ in encoder.video_formats or ()]
    layout = _layout(name, known, info, asked.pixel_format)
    return Encoding(name, layout, options, container.steady_rate, container.gaps)


def _layout(codec: str, known: list[str], info: VideoInfo, pixel_format: str | None) -> Layout:
    source = info.layout
    if pixel_format is not None:
        asked = Layout.of(pixel_format)
        if asked is None or asked.reduced is None or (known and pixel_format not in known):
            raise UsageError(f"{codec} takes no frames of {pixel_format}; it takes {', '.join(known)}")
        if asked.bits != source.bits:
            raise UsageError(f"{pixel_format} would change the {source.bits} bits of the video's luma")
        return asked
    wanted = [source.reduced or (2, 2), (2, 2), (2, 1), (1, 1)]
    finer = [r for r in wanted if r == wanted[0] or (r[0] <= wanted[0][0] and r[1] <= wanted[0][1])]
    for across, down in finer:
        # These encoders require dimensions that are multiples of the subsampling factors.
        if codec in _WHOLE_CELLS and (info.width % across or info.height % down):
            continue
        for family in ("yuvj", "yuv") if source.name.startswith("yuvj") else ("yuv",):
            name = planar_name((across, down), source.bits, family)
            if not known or name in known:  # some encoders list no formats and accept any
                return Layout(name, source.bits, (across, down))
    raise UsageError(f"{codec} takes no frames like those of {source.name}; choose another codec")


_WHOLE_CELLS = frozenset({"libx264", "libx265", "h264_nvenc", "hevc_nvenc"})


class Encoder:
    """Encodes frames into an open container.

    Attributes:
        stream: The encoded stream.
    """

    def __init__(
        self, container: OutputContainer, info: VideoInfo, encoding: Encoding, interlaced: bool
    ) -> None:
        """Add a stream to the container.

        Raises:
            WriteError: The encoder does not accept the options or the frames.
        """
        self._container, self._info, self._encoding = container, info, encoding
        # At a constant rate: the latest frame, with its number as time, and the time of the first.
        self._last: VideoFrame | None = None
        self._begun = 0
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
        """Encode the next frame. Its time stamp is in units of the source stream's time base.

        Raises:
            WriteError: The frame cannot be encoded.
        """
        if not self.stream.codec_context.is_open:
            tag(self.stream.codec_context, frame)
        frame.pict_type = PictureType.NONE
        frame.time_base = self._info.time_base
        if self._encoding.steady_rate and frame.pts is not None:
            self._renumber(frame)
        self._mux(frame)
        if unknown := self.stream.codec_context.options:  # those that the open encoder did not take
            names = " and no ".join(f"--{name}" for name in unknown)
            raise WriteError(f"{self._encoding.codec} has no {names}; leave it out or choose another --codec")

    def _renumber(self, frame: VideoFrame) -> None:
        """Replace a frame's time by its number at the constant rate. Fill the gap before it, if necessary."""
        time, last = frame.pts or 0, self._last
        self._begun = time if last is None else self._begun
        scale = self._info.time_base * self._info.rate
        # Relative to the first frame, because its time may lie between two numbers.
        exact = round(self._begun * scale) + (time - self._begun) * scale
        number = round(exact)
        if last is not None and last.pts is not None:
            number = max(number, last.pts + 1)
            while not self._encoding.gaps and last.pts + 1 < number:
                last.pts += 1
                self._mux(last)
        if number > exact + 2:
            raise WriteError("its frames are not equally spaced; choose another format, such as .mkv")
        frame.pts, frame.time_base, self._last = number, 1 / self._info.rate, frame

    def _mux(self, frame: VideoFrame | None) -> None:
        try:
            packets = self.stream.encode(frame)
        except av.error.FFmpegError as error:
            why = one_line(error.strerror or error)
            raise WriteError(f"{self._encoding.codec} cannot encode it: {why}") from error
        self._container.mux(packets)

    def finish(self) -> None:
        """Flush the encoder.

        Raises:
            WriteError: A frame cannot be encoded.
        """
        self._mux(None)


@contextlib.contextmanager
def segment(path: Path, info: VideoInfo, encoding: Encoding, interlaced: bool) -> Iterator[Encoder]:
    """Yield an encoder into a segment file. The file is complete when the block ends.

    Raises:
        WriteError: The encoder does not accept the options or a frame.
        OSError: The file cannot be written.
    """
    with files.open_output(path, files.SEGMENT_FORMAT, {}) as container:
        encoder = Encoder(container, info, encoding, interlaced)
        yield encoder
        encoder.finish()

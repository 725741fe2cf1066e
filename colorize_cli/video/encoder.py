"""Encoding colorized frames: choice of encoder and options, and the encoder itself."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import sub
from pathlib import Path
from typing import BinaryIO

import av
from av.codec.context import Flags
from av.container import OutputContainer
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from colorize_cli.core.errors import UsageError, WriteError, one_line
from colorize_cli.core.settings import VideoSettings
from colorize_cli.video import files
from colorize_cli.video.pixel_format import DEPTHS, Layout, VideoInfo, planar_name, tag

# Codecs that `files.SEGMENT_FORMAT` does not hold.
_MOV_SEGMENTS = frozenset({"dnxhd", "prores", "prores_aw", "prores_ks", "qtrle"})
# Fixed, because the output of most encoders depends on the number of threads: segments encoded on different
# machines must be equal. On two cores it is as fast as three threads.
_THREADS = 8


@dataclass(frozen=True)
class Container:
    """A container format.

    Attributes:
        format: libavformat's name of the format.
        codecs: Encoders in order of preference. The first one that takes the frames as they are is chosen.
        options: Options for the encoder that is preferred.
        upright: True if the format cannot say that frames are displayed turned or mirrored.
        steady_rate: True if the format has a constant frame rate instead of time stamps.
        gaps: True if frames may be missing nevertheless.
        muxing: Options for libavformat's muxer.
        holds: Names of all codecs that the format holds; None if libavformat knows them.
        text: Codec of text subtitles in this format; None if it holds none.
        pictures: True if it holds cover art.
        lacks: What else it does not hold: "time code", "list of chapters".
    """

    format: str
    codecs: tuple[str, ...]
    options: Mapping[str, str] = field(default_factory=dict)
    upright: bool = False
    steady_rate: bool = False
    gaps: bool = True
    muxing: Mapping[str, str] = field(default_factory=dict)
    holds: frozenset[str] | None = None
    text: str | None = None
    pictures: bool = False
    lacks: tuple[str, ...] = ()


# Some encoders print to stderr by themselves, unless this environment variable is set.
_LOG = "COLORIZE_ENCODER_LOG"
_SILENT = {"libx265": {"x265-params": "log-level=none"}}
_H264 = {"crf": "18", "preset": "medium"}
_QUANTIZER = {"qmin": "2", "qmax": "2"}
# Options for a high quality, by encoder. Other encoders have a suitable default.
_OPTIONS: dict[str, Mapping[str, str]] = {
    "libx264": _H264,
    "libx265": _H264,
    # About the same quality, for encoders with other scales.
    "libvpx-vp9": {"crf": "20", "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"},
    "libsvtav1": {"crf": "20", "preset": "8"},
    "mpeg4": _QUANTIZER,
    "wmv2": _QUANTIZER,
    "mpeg2video": _QUANTIZER,
    "mjpeg": _QUANTIZER,
}
# DNxHR's profiles by pixel format. Without one the encoder takes a few sizes and rates only.
_DNXHR = {"yuv422p": "dnxhr_hq", "yuv422p10le": "dnxhr_hqx", "yuv444p10le": "dnxhr_444"}
_INDEX_FIRST = {"movflags": "+faststart"}
# Other codecs become private data in a transport stream, which nothing can read.
_TS = frozenset(
    {"mpeg1video", "mpeg2video", "mpeg4", "h264", "hevc"}
    | {"aac", "aac_latm", "ac3", "dts", "eac3", "mp1", "mp2", "mp3", "opus", "s302m", "truehd"}
    | {"dvb_subtitle", "dvb_teletext", "klv"}
)
_M2TS = (_TS - {"klv"}) | {"hdmv_pgs_subtitle", "hdmv_text_subtitle", "pcm_bluray"}
_PS = frozenset({"mpeg1video", "mpeg2video", "ac3", "dts", "mp1", "mp2", "mp3", "pcm_dvd", "dvd_subtitle"})
_FLV = frozenset({"h264", "hevc", "av1", "flv1", "aac", "mp3", "speex", "nellymoser", "adpcm_swf"})
_BARE = ("time code", "list of chapters")
_MP4 = Container("mp4", ("libx264", "libx265", "ffv1"), muxing=_INDEX_FIRST, text="mov_text", pictures=True)
_BLURAY = Container(
    "mpegts", ("libx264", "libx265"), upright=True, muxing={"mpegts_m2ts_mode": "1"}, holds=_M2TS, lacks=_BARE
)
_MPEG = Container("mpeg", ("mpeg2video",), upright=True, steady_rate=True, gaps=False, holds=_PS, lacks=_BARE)
# By file name suffix; the values of `core.formats.VIDEOS` are the same suffixes without PyAV.
CONTAINERS: dict[str, Container] = {
    ".3gp": Container("3gp", ("libx264",), muxing=_INDEX_FIRST, text="mov_text", lacks=("time code",)),
    # With B-frames it would begin later.
    ".flv": Container("flv", ("libx264",), {"bf": "0"}, upright=True, holds=_FLV, lacks=_BARE),
    ".mp4": _MP4,
    ".m4v": _MP4,
    ".mov": Container("mov", ("libx264", "libx265"), muxing=_INDEX_FIRST, text="mov_text"),
    ".mkv": Container("matroska", ("libx264", "libx265", "ffv1"), text="subrip", pictures=True),
    ".webm": Container("webm", ("libvpx-vp9", "libsvtav1"), text="webvtt"),
    ".m2ts": _BLURAY,
    ".mts": _BLURAY,
    ".ts": Container("mpegts", ("libx264", "libx265"), upright=True, holds=_TS, lacks=_BARE),
    ".avi": Container("avi", ("mpeg4", "mjpeg", "ffv1"), upright=True, steady_rate=True, lacks=_BARE),
    ".wmv": Container("asf", ("wmv2",), upright=True, lacks=("time code",)),
    ".y4m": Container(
        "yuv4mpegpipe",
        ("rawvideo",),
        upright=True,
        steady_rate=True,
        gaps=False,
        muxing={"strict": "-1"},
        holds=frozenset({"rawvideo"}),
        lacks=_BARE,
    ),
    ".mpg": _MPEG,
    ".mpeg": _MPEG,
}
# Encoders whose streams cannot say that luma has full range.
_LIMITED_RANGE = frozenset({"mpeg1video", "mpeg2video", "mpeg4", "wmv2"})
# AVFieldOrder in libavcodec: the bottom field is shown first. x264 does not take it from the frames.
_BOTTOM_FIRST = (3, 5)
# These encoders require dimensions that are multiples of the subsampling factors.
_WHOLE_CELLS = frozenset({"libx264", "libx265", "h264_nvenc", "hevc_nvenc"})


@dataclass(frozen=True)
class Encoding:
    """How to encode a video.

    Attributes:
        codec: libavcodec's name of the encoder.
        layout: Layout of the frames to encode.
        options: Options for the encoder.
        steady_rate: True to encode frames at a constant rate, whatever their time stamps.
        gaps: False to repeat frames where that rate requires it.
        notes: Lines for the user about what differs from the source or from the default.
    """

    codec: str
    layout: Layout
    options: Mapping[str, str]
    steady_rate: bool = False
    gaps: bool = True
    notes: tuple[str, ...] = ()


def choose(suffix: str, info: VideoInfo, asked: VideoSettings) -> Encoding:
    """Choose the encoding for a video and a container format.

    Args:
        suffix: Extension of the output file, in lower case.
        info: Properties of the source's frames.
        asked: The requested codec, quality, preset and pixel format.

    Raises:
        UsageError: There is no such encoder or pixel format, or none that takes the frames.
    """
    container = CONTAINERS[suffix]
    names = (asked.codec,) if asked.codec else container.codecs
    encoders = {name: _encoder(name) for name in names}
    if info.coding.full:
        unable = _LIMITED_RANGE if container.format == "matroska" else _LIMITED_RANGE | {"ffv1"}
        encoders = {name: encoder for name, encoder in encoders.items() if name not in unable}
        if not encoders:
            raise UsageError(
                f"its luma has full range, which {names[0]} cannot say; choose another codec or .mkv"
            )
    known = {name: [each.name for each in encoder.video_formats or ()] for name, encoder in encoders.items()}
    if asked.pixel_format is not None:
        found = _requested(known, info, asked.pixel_format)
    elif not (found := _layouts(known, info, (info.layout.bits,))):
        deeper = [bits for bits in DEPTHS if bits > info.layout.bits]
        found = _layouts(
            known, info, [*deeper, *(bits for bits in reversed(DEPTHS) if bits < info.layout.bits)]
        )
    if not found:
        raise UsageError(f"{names[0]} takes no frames like those of {info.layout.name}; choose another codec")
    # The first encoder that keeps the luma, or else the one that keeps most of its bits.
    name, layout = max(found, key=lambda choice: min(choice[1].bits, info.layout.bits))
    notes, reduced = [], info.layout.reduced
    if name != names[0]:
        frames = f"{info.layout.name} of full range" if info.coding.full else info.layout.name
        notes.append(f"encoded with {name}, because {names[0]} cannot hold frames of {frames}")
    if layout.bits != info.layout.bits:
        notes.append(f"its luma of {info.layout.bits} bits is stored with {layout.bits} bits")
    if reduced and layout.reduced and max(map(sub, layout.reduced, reduced)) > 0:
        notes.append(f"its chroma is stored more coarsely than in {info.layout.name}, as {layout.name}")
    codec = encoders[name].name
    options = _options(codec, layout, asked)
    if name == container.codecs[0]:
        options |= container.options
    if codec == "libx264" and info.field_order in _BOTTOM_FIRST:
        options["x264-params"] = "bff=1"
    return Encoding(codec, layout, options, container.steady_rate, container.gaps, tuple(notes))


def _encoder(name: str) -> av.codec.Codec:
    try:
        encoder = av.codec.Codec(name, "w")
    except ValueError as error:
        raise UsageError(f"there is no encoder {name!r} here") from error
    if encoder.type != "video":
        raise UsageError(f"{name!r} is not an encoder of video but of {encoder.type}")
    return encoder


def _options(codec: str, layout: Layout, asked: VideoSettings) -> dict[str, str]:
    options = dict(_OPTIONS.get(codec, {}))
    if codec == "dnxhd" and layout.name in _DNXHR:
        options["profile"] = _DNXHR[layout.name]
    if asked.crf is not None:
        options["crf"] = str(asked.crf)
    if asked.preset is not None:
        options["preset"] = asked.preset
    if not os.environ.get(_LOG):
        os.environ.setdefault("SVT_LOG", "1")  # errors only
        options |= _SILENT.get(codec, {})
    return options


def _requested(
    known: Mapping[str, list[str]], info: VideoInfo, pixel_format: str
) -> list[tuple[str, Layout]]:
    """Return the encoders that take the requested pixel format, with its layout.

    Args:
        known: Pixel formats by encoder; empty if it lists none and takes any.
        info: Properties of the source's frames.
        pixel_format: The requested pixel format.

    Raises:
        UsageError: No encoder takes the pixel format, or it has too few bits.
    """
    asked, (codec, taken) = Layout.of(pixel_format), next(iter(known.items()))
    able = [name for name, formats in known.items() if not formats or pixel_format in formats]
    if asked is None or asked.reduced is None or not able:
        raise UsageError(f"{codec} takes no frames of {pixel_format}; it takes {', '.join(taken)}")
    if asked.bits < info.layout.bits:
        raise UsageError(f"{pixel_format} would change the {info.layout.bits} bits of the video's luma")
    return [(name, asked) for name in able]


def _layouts(
    known: Mapping[str, list[str]], info: VideoInfo, depths: Sequence[int]
) -> list[tuple[str, Layout]]:
    """Return the encoders that take one of the depths, with the layout of the frames for each.

    Args:
        known: Pixel formats by encoder; empty if it lists none and takes any.
        info: Properties of the source's frames.
        depths: Numbers of bits in order of preference.
    """
    own = info.layout.reduced or (2, 2)
    finer = [r for r in ((2, 2), (2, 1), (1, 1)) if r[0] <= own[0] and r[1] <= own[1]]
    wanted = dict.fromkeys([own, *finer, (2, 1), (2, 2)])  # the chroma of a gray film carries nothing
    found = []
    for codec, formats in known.items():
        full = info.layout.name.startswith("yuvj") or (info.coding.full and codec == "mjpeg")
        fitting = (
            Layout(name, bits, (across, down))
            for bits in depths
            for across, down in wanted
            if codec not in _WHOLE_CELLS or not (info.width % across or info.height % down)
            for family in (("yuvj", "yuv") if full else ("yuv",))
            if (name := planar_name((across, down), bits, family)) in formats or not formats
        )
        if (layout := next(fitting, None)) is not None:
            found.append((codec, layout))
    return found


class Encoder:
    """Encodes frames into an open container.

    Attributes:
        stream: The encoded stream.
    """

    def __init__(
        self, container: OutputContainer, info: VideoInfo, encoding: Encoding, first: VideoFrame
    ) -> None:
        """Add a stream to the container.

        `first` is a frame with the color properties and the kind of scan of those to encode.

        Raises:
            WriteError: The encoder does not accept the options or the frames.
        """
        self._container, self._info, self._encoding = container, info, encoding
        # At a constant rate: the latest frame, with its number as time, and the time of the first.
        self._last: VideoFrame | None = None
        self._begun = 0
        try:
            self.stream = self._begin(first)
        except (av.error.FFmpegError, ValueError) as error:
            raise WriteError(f"{encoding.codec} cannot encode it: {one_line(error)}") from error

    def _begin(self, first: VideoFrame) -> VideoStream:
        info, encoding = self._info, self._encoding
        stream: VideoStream = self._container.add_stream(encoding.codec, rate=info.rate)  # type: ignore[assignment]
        context = stream.codec_context
        context.width, context.height = info.width, info.height
        context.pix_fmt = encoding.layout.name
        context.time_base = 1 / info.rate if encoding.steady_rate else info.time_base
        context.sample_aspect_ratio = info.aspect
        context.field_order = info.field_order
        context.options = dict(encoding.options)
        context.thread_type, context.thread_count = "AUTO", _THREADS
        tag(context, first)
        if first.interlaced_frame:
            context.flags |= Flags.interlaced_dct | Flags.interlaced_me
        stream.time_base = info.time_base
        return stream

    def add(self, frame: VideoFrame) -> None:
        """Encode the next frame. Its time stamp is in units of the source stream's time base.

        Raises:
            WriteError: The frame cannot be encoded.
        """
        frame.pict_type = PictureType.NONE
        frame.time_base = self._info.time_base
        if self._encoding.steady_rate and frame.pts is not None:
            self._renumber(frame)
        self._mux(frame)
        # Options that the open encoder did not take; among them are the muxer's in a file of several streams.
        if unknown := self.stream.codec_context.options.keys() & self._encoding.options.keys():
            names = " and no ".join(f"--{name}" for name in sorted(unknown))
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
def segment(
    path: Path | BinaryIO, info: VideoInfo, encoding: Encoding, first: VideoFrame
) -> Iterator[Encoder]:
    """Yield an encoder into a segment file. The file is complete when the block ends.

    `first` is the first frame of the segment; see `Encoder`.

    Raises:
        WriteError: The encoder does not accept the options or a frame.
        OSError: The file cannot be written.
    """
    format_ = "mov" if encoding.codec in _MOV_SEGMENTS else files.SEGMENT_FORMAT
    with files.open_output(path, format_, {}) as container:
        encoder = Encoder(container, info, encoding, first)
        yield encoder
        encoder.finish()

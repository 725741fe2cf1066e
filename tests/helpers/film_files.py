"""Films with all that containers hold beside the picture, made with PyAV."""

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame
from PIL import Image

SUBTITLES = b"1\n00:00:00,100 --> 00:00:00,200\nHello\n\n2\n00:00:00,250 --> 00:00:00,350\nthere\n"
CHAPTERS = [
    {
        "id": n,
        "start": 200 * n,
        "end": 200 * n + 200,
        "time_base": Fraction(1, 1000),
        "metadata": {"title": name},
    }
    for n, name in enumerate(("one", "two"))
]
RATE = Fraction(25)


def make_film(
    path: Path,
    *,
    codec: str = "mpeg4",
    pixel_format: str = "yuv420p",
    size: tuple[int, int] = (64, 48),
    sound: str | None = None,
    text: str | None = None,
    cover: bool = False,
    chapters: bool = False,
    aspect: Fraction = Fraction(1),
    fields: str | None = None,
    full: bool = False,
    frames: int = 10,
    rate: Fraction = RATE,
    options: dict[str, str] | None = None,
    muxing: dict[str, str] | None = None,
    tags: dict[str, str] | None = None,
    stream_tags: dict[str, str] | None = None,
) -> Path:
    """Make a gray film.

    Args:
        path: The file. Its suffix decides the container.
        codec: The encoder.
        pixel_format: The pixel format of the frames.
        size: Width and height.
        sound: Encoder of a sound stream; None for none.
        text: Encoder of a subtitle stream; None for none.
        cover: True to add cover art.
        chapters: True to add chapters.
        aspect: The pixel aspect ratio.
        fields: "tff" or "bff" for interlaced frames, as in FFmpeg's filter `setfield`.
        full: True for full-range luma.
        frames: Number of frames.
        rate: Frames a second.
        options: Options of the video's encoder.
        muxing: Options of the muxer.
        tags: Metadata of the container.
        stream_tags: Metadata of the video stream.
    """
    with av.open(str(path), "w", options=muxing or {}) as out:
        out.metadata.update(tags or {})
        if chapters:
            out.set_chapters(CHAPTERS)
        video: Any = out.add_stream(codec, rate=rate, options=options or {})
        video.width, video.height = size
        video.pix_fmt = pixel_format
        video.codec_context.time_base = 1 / rate
        video.codec_context.sample_aspect_ratio = aspect
        video.codec_context.color_range = 2 if full else 0
        if fields:
            video.codec_context.field_order = 2 if fields == "tff" else 3
            video.codec_context.flags |= av.codec.context.Flags.interlaced_dct
        video.metadata.update(stream_tags or {})
        voice = add_sound_stream(out, sound) if sound else None
        titles: Any = out.add_stream(text) if text else None
        picture: Any = None
        if cover and path.suffix == ".mkv":
            out.add_attachment("cover.png", "image/png", cover_art())
        elif cover:
            picture = out.add_stream("png", rate=1)
            picture.width, picture.height, picture.pix_fmt = 8, 8, "rgb24"
            picture.disposition = av.stream.Disposition.attached_pic
        packets = list(video_packets(video, fields, full, frames))
        if titles is not None:
            packets += subtitle_packets(titles)
        if voice is not None:
            packets += sound_packets(voice, frames / rate)
        if picture is not None:
            packet = av.Packet(cover_art())
            packet.stream, packet.pts, packet.dts, packet.time_base = picture, 0, 0, Fraction(1, 1000)
            packets.insert(0, packet)
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
            out.mux_one(packet)
    return path


def cover_art() -> bytes:
    """Return a PNG of 8 x 8 pixels."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 30, 30)).save(file, "PNG")
    return file.getvalue()


def luma_of(frame: VideoFrame, plane: int = 0) -> np.ndarray:
    """Return the samples of a plane, (H, W)."""
    wanted = np.uint16 if frame.format.components[plane].bits > 8 else np.uint8
    data = np.frombuffer(bytes(frame.planes[plane]), wanted)
    lines = data.reshape(frame.planes[plane].height, -1)
    return lines[:, : frame.planes[plane].width]


def video_packets(video: Any, fields: str | None, full: bool, frames: int):
    """Yield the packets of moving gray waves."""
    size, pixel_format = (video.width, video.height), video.pix_fmt
    time_base = video.codec_context.time_base
    graph = av.filter.Graph()
    source = graph.add_buffer(width=size[0], height=size[1], format=pixel_format, time_base=time_base)
    last, sink = graph.add("setfield", fields or "prog"), graph.add("buffersink")
    source.link_to(last)
    last.link_to(sink)
    graph.configure()
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    for number in range(frames):
        frame = VideoFrame(*size, pixel_format)
        bits = frame.format.components[0].bits
        for index, plane in enumerate(frame.planes):
            samples = np.frombuffer(plane, np.uint16 if bits > 8 else np.uint8)
            lines = samples.reshape(plane.height, -1)
            lines[:] = 2 ** (bits - 1)
            if index == 0 or frame.format.is_rgb:
                wave = np.rint((120 + 70 * np.sin((x + number) / 5) * np.cos(y / 4)) * 2 ** (bits - 8))
                lines[:, : size[0]] = wave.astype(samples.dtype)
        frame.pts, frame.time_base = number, time_base
        frame.color_range = 2 if full else 0
        graph.vpush(frame)
        yield from video.encode(graph.vpull())
    yield from video.encode(None)


def add_sound_stream(out: Any, codec: str) -> Any:
    stream = out.add_stream(codec, rate=48000)
    stream.layout = "stereo" if codec == "pcm_bluray" else "mono"
    return stream


def sound_packets(stream: Any, seconds: Fraction):
    size = stream.codec_context.frame_size or 960
    tone = np.sin(np.arange(int(48000 * seconds)) / 20) * 0.3
    resampler = av.AudioResampler(stream.format, stream.layout, 48000, frame_size=size)
    frame = av.AudioFrame.from_ndarray(tone.astype(np.float32)[None], format="flt", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
    for part in (frame, None):
        for ready in resampler.resample(part):
            yield from stream.encode(ready)
    yield from stream.encode(None)


def subtitle_packets(stream: Any) -> list[Any]:
    packets = []
    with av.open(io.BytesIO(SUBTITLES), format="srt") as source:
        decoder = source.streams.subtitles[0].codec_context
        decoder.open(strict=False)
        stream.codec_context.subtitle_header = decoder.subtitle_header
        for packet in source.demux():
            if packet.size:
                encoded = stream.codec_context.encode_subtitle(decoder.decode2(packet))
                encoded.stream, encoded.time_base = stream, packet.time_base
                encoded.pts, encoded.dts, encoded.duration = packet.pts, packet.dts, packet.duration
                packets.append(encoded)
    return packets


def streams_of(path: Path) -> list[tuple[str, str]]:
    """Return the type and codec of each stream, as PyAV reads them. Cover art has the type "cover"."""
    with av.open(str(path)) as container:
        return [
            ("cover" if s.disposition & av.stream.Disposition.attached_pic else s.type, codec_of(s))
            for s in container.streams
        ]


def codec_of(stream: Any) -> str:
    context = stream.codec_context
    return str(getattr(stream, "name", None)) if context is None else context.codec.canonical_name


def packets_of(path: Path, kind: str) -> list[tuple[Fraction, bytes]]:
    """Return times and contents of the packets of the first stream of a type."""
    with av.open(str(path)) as container:
        stream = next(s for s in container.streams if s.type == kind)
        return [
            (p.pts * p.time_base, bytes(p)) for p in container.demux(stream) if p.size and p.pts is not None
        ]


def text_of(path: Path) -> list[tuple[float, str]]:
    """Return time and plain text of all subtitles."""
    with av.open(str(path)) as container:
        stream = container.streams.subtitles[0]
        return [
            (round(float(packet.pts * packet.time_base), 3), rect.dialogue.decode())
            for packet in container.demux(stream)
            if packet.size
            for rect in stream.codec_context.decode2(packet) or ()
        ]


def frames_of(path: Path) -> list[VideoFrame]:
    """Return all frames of the first video stream that is not cover art."""
    with av.open(str(path)) as container:
        stream = next(
            s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic
        )
        return list(container.decode(stream))

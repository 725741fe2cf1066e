"""Small videos for tests, made with PyAV."""

import bisect
import functools
import io
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.video.frame import PictureType, VideoFrame

from colorize_cli.video.pixel_format import plane_of

BT709, BT601, BT2020 = 1, 6, 9
FULL = 2


@dataclass(frozen=True)
class Recipe:
    """Properties of a video to make."""

    frames: int = 20
    width: int = 64
    height: int = 48
    pixel_format: str = "yuv420p"
    codec: str = "libx264"
    rate: Fraction = Fraction(25)
    time_base: Fraction = Fraction(1, 1000)
    times: tuple[int, ...] = ()
    full: bool = False
    matrix: int = 2
    rotation: int = 0
    mirrored: bool = False
    aspect: Fraction = Fraction(1)
    sounds: int = 0
    subtitles: bool = False
    interlaced: bool = False
    chapters: bool = False
    cut: int | None = None
    shots: tuple[int, ...] = ()
    keys: tuple[int, ...] = ()
    is_color: bool = False
    options: dict[str, str] = field(default_factory=lambda: {"crf": "10"})
    muxing: dict[str, str] = field(default_factory=dict)


def luma(recipe: Recipe, number: int) -> np.ndarray:
    """Return luma codes: smooth moving shapes, with another scene after the cut.

    With `shots`, frames are panning noise instead. Every shot but the first begins with one of those frames.
    """
    if recipe.shots:
        scene = texture(recipe.height, recipe.width, bisect.bisect(recipe.shots, number))
        return codes(recipe, np.roll(scene, number, axis=1))
    y, x = np.mgrid[0 : recipe.height, 0 : recipe.width]
    cut = recipe.cut is not None and number >= recipe.cut
    wave = np.sin((x + number) / 5) * np.cos(y / 4) if not cut else np.sin((x * y) / 60 - number / 9)
    return codes(recipe, wave)


def codes(recipe: Recipe, wave: np.ndarray) -> np.ndarray:
    """Return luma codes in the recipe's bit depth for values from -1 to 1."""
    bits = bits_of(recipe)
    return np.rint((120 + 70 * wave) * 2 ** (bits - 8)).astype(np.uint16 if bits > 8 else np.uint8)


@functools.cache
def texture(height: int, width: int, seed: int) -> np.ndarray:
    """Return smooth noise from -1 to 1 that wraps around horizontally."""
    noise = np.random.default_rng(seed).normal(size=(height, width)).astype(np.float32)
    smooth = cv2.GaussianBlur(np.hstack([noise, noise, noise]), (0, 0), 2.5)[:, width : 2 * width]
    return np.clip(smooth / (2 * smooth.std()), -1, 1)


def bits_of(recipe: Recipe) -> int:
    """Return the number of bits per sample."""
    return VideoFrame(16, 16, recipe.pixel_format).format.components[0].bits


def make(path: Path, recipe: Recipe) -> Path:
    """Make a video."""
    with av.open(str(path), "w", options=recipe.muxing) as out:
        out.metadata["title"] = "a test"
        if recipe.chapters:
            chapter = {
                "id": 1,
                "start": 0,
                "end": 400,
                "time_base": Fraction(1, 1000),
                "metadata": {"title": "one"},
            }
            out.set_chapters([chapter])
        stream: Any = out.add_stream(recipe.codec, rate=recipe.rate, options=recipe.options)
        stream.width, stream.height, stream.pix_fmt = recipe.width, recipe.height, recipe.pixel_format
        stream.codec_context.time_base = recipe.time_base
        stream.codec_context.sample_aspect_ratio = recipe.aspect
        stream.codec_context.colorspace = recipe.matrix
        stream.codec_context.color_range = FULL if recipe.full else 1
        if recipe.interlaced:
            stream.codec_context.flags |= av.codec.context.Flags.interlaced_dct
        if recipe.rotation or recipe.mirrored:
            stream.set_display_rotation(recipe.rotation, hflip=recipe.mirrored)
        sounds = [sound_stream(out) for _ in range(recipe.sounds)]
        text: Any = None
        if recipe.subtitles:
            text = subtitle_stream(out)
        for number in range(recipe.frames):
            frame = VideoFrame(recipe.width, recipe.height, recipe.pixel_format)
            plane_of(frame, 0)[:] = luma(recipe, number)
            for index in range(1, len(frame.planes)):
                chroma = plane_of(frame, index)
                chroma[:] = 2 ** (bits_of(recipe) - 1)
                if recipe.is_color:
                    chroma[:, ::2] += 40 * index
            frame.colorspace, frame.color_range = recipe.matrix, FULL if recipe.full else 1
            step = round(1 / recipe.rate / recipe.time_base)
            frame.pts = recipe.times[number] if recipe.times else number * step
            frame.time_base = recipe.time_base
            if number in recipe.keys:
                frame.pict_type = PictureType.I
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        for index, sound in enumerate(sounds):
            add_sound(out, sound, 300 * (index + 1), recipe.frames / float(recipe.rate))
        if text is not None:
            out.mux(subtitle_packets(text))
    return path


def sound_stream(out: Any) -> Any:
    stream = out.add_stream("aac", rate=8000)
    stream.layout = "mono"
    return stream


def add_sound(out: Any, stream: Any, hertz: int, seconds: float) -> None:
    tone = np.sin(np.arange(int(8000 * seconds)) * 2 * np.pi * hertz / 8000).astype(np.float32)[None] * 0.3
    for start in range(0, tone.shape[1], 1024):
        frame = av.AudioFrame.from_ndarray(tone[:, start : start + 1024], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 8000, start, Fraction(1, 8000)
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))


_SUBTITLES = b"1\n00:00:00,100 --> 00:00:00,400\nHello\n\n2\n00:00:00,450 --> 00:00:00,700\nthere\n"
_read_subtitles: list[Any] = []


def subtitle_stream(out: Any) -> Any:
    source = av.open(io.BytesIO(_SUBTITLES), format="srt")
    _read_subtitles.append(source)
    return out.add_stream_from_template(source.streams.subtitles[0])


def subtitle_packets(stream: Any) -> list[Any]:
    source = _read_subtitles.pop()
    packets = [packet for packet in source.demux() if packet.dts is not None]
    for packet in packets:
        packet.stream = stream
    return packets


@dataclass(frozen=True)
class Contents:
    """Contents of a video."""

    times: list[Fraction]
    lumas: list[np.ndarray]
    first: VideoFrame
    others: dict[int, tuple[str, list[tuple[Fraction, bytes]]]]
    metadata: dict[str, str]
    chapters: list[Any]
    aspect: Fraction
    chroma: float


def look(path: Path) -> Contents:
    """Read a whole video."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        times = [frame.pts * frame.time_base for frame in frames]
        lumas = [plane_of(frame, 0).copy() for frame in frames]
        metadata, chapters = dict(container.metadata), list(container.chapters())
        aspect = Fraction(stream.sample_aspect_ratio or 1)
        neutral = 2 ** (frames[0].format.components[0].bits - 1)
        chroma = max(
            (
                float(np.abs(plane_of(f, i).astype(int) - neutral).mean())
                for f in frames
                for i in (1, 2)[: len(f.planes) - 1]
            ),
            default=0.0,
        )
    others: dict[int, tuple[str, list[tuple[Fraction, bytes]]]] = {}
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.stream.type != "video" and packet.dts is not None:
                _, packets = others.setdefault(packet.stream.index, (packet.stream.type, []))
                packets.append((packet.pts * packet.time_base, bytes(packet)))
    return Contents(times, lumas, frames[0], others, metadata, chapters, aspect, chroma)


def packets(path: Path) -> list[tuple[int, int | None, int | None, bool, bytes]]:
    """Return all packets: stream index, presentation and decoding times, key frame flag and content."""
    with av.open(str(path)) as container:
        return [(p.stream.index, p.pts, p.dts, p.is_keyframe, bytes(p)) for p in container.demux() if p.size]

"""Still frames of a video, and contact sheets that show frames before and after."""

import math
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from PIL import Image, ImageDraw, ImageFont

from colorize_cli.color.ycbcr import rgb_of
from colorize_cli.core.errors import ReadError
from colorize_cli.core.settings import Settings
from colorize_cli.inference.model import Model
from colorize_cli.video import pixel_format
from colorize_cli.video.encoder import Encoding
from colorize_cli.video.pixel_format import Layout, VideoInfo, planar_name, plane_of
from colorize_cli.video.reader import VideoReader, opened
from colorize_cli.video.stages import VideoStages, VideoStats

# Longest side of an image in a contact sheet, in pixels.
_PREVIEW_SIDE = 480
_MARGIN, _TEXT = 8, 18
_CLOCK = len("0:00:00.0")
_BACKGROUND, _FOREGROUND = (24, 24, 24), (220, 220, 220)


def preview(
    video: VideoReader, frames: int, network: Model, settings: Settings, stats: VideoStats
) -> Image.Image:
    """Return a contact sheet of a video: sampled frames before and after, each colorized by itself.

    Args:
        video: The open source, at its first frame.
        frames: Number of frames, at equal intervals in the requested time range.
        network: The model.
        settings: The settings of the run.
        stats: Updated while frames are processed.

    Raises:
        ReadError: The source is damaged there, or ends before the time range.
    """
    requested, layout = settings.video, video.info.layout
    planar = Layout.of(planar_name(layout.reduced or (1, 1), layout.bits))
    assert planar is not None  # noqa: S101 - a planar format of a known layout
    stages = VideoStages(video, Encoding("rawvideo", planar, {}), network, settings, stats)
    length = max(0.0, (video.restarted_seconds or video.seconds) - requested.start)
    if requested.duration is not None:
        length = min(length, requested.duration)
    if not length and requested.start:
        raise ReadError(f"it ends before {requested.start:g} seconds")
    times = [requested.start + length * (number + 0.5) / frames for number in range(frames)]
    pairs: list[tuple[float, Image.Image, Image.Image]] = []
    for seconds, frame in zip(times, frames_at(video, times), strict=True):
        before = image_of(frame, video.info, _PREVIEW_SIDE)
        after = image_of(stages.alone(frame), video.info, _PREVIEW_SIDE)
        pairs.append((seconds, before, after))
        stats.frames += 1
    return contact_sheet(pairs)


def stills(path: Path, positions: Sequence[float], side: int) -> Iterator[Image.Image]:
    """Yield frames of a video in display orientation.

    Args:
        path: The source video.
        positions: Positions as fractions of the duration, ascending. For each, the frame shown then is
            returned, or the nearest decodable frame after it.
        side: Longest side of the images, in pixels.

    Raises:
        ReadError: The source is not a supported video.
    """
    with opened(path) as video:
        for frame in frames_at(video, [position * video.seconds for position in positions]):
            yield image_of(frame, video.info, side)


def frames_at(video: VideoReader, times: Sequence[float]) -> Iterator[VideoFrame]:
    """Yield the frame at each of some times.

    Args:
        video: A reader of a seekable file, which is not used afterwards.
        times: Seconds after the first frame, ascending. For each, the frame shown then is returned, or the
            first decodable frame after it, or the last one found if there is none.
    """
    frame = video.first
    for seconds in times:
        if seconds:
            frame = next(video.between(video.info.time_of(seconds)), frame)
        yield frame


def image_of(frame: VideoFrame, info: VideoInfo, side: int) -> Image.Image:
    """Return a frame in display orientation as RGB, its longest side at most `side` pixels."""
    width, height = round(info.width * info.aspect), info.height
    scale = min(1.0, side / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    planes = [_resized(plane_of(frame, index), size) for index in range(len(frame.planes))]
    if len(planes) == 1:
        neutral = np.full_like(planes[0], 2 ** (info.layout.bits - 1))
        planes += [neutral, neutral]
    rgb = np.clip(rgb_of(*info.coding.values(*planes), info.matrix), 0, 1)
    turned = pixel_format.upright(np.rint(rgb * 255).astype(np.uint8), info)
    return Image.fromarray(np.ascontiguousarray(turned))


def _resized(plane: npt.NDArray[np.generic], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    shrinks = size[0] * size[1] < plane.size
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(plane.astype(np.float32), size, interpolation=method), np.float32)


def contact_sheet(pairs: Sequence[tuple[float, Image.Image, Image.Image]]) -> Image.Image:
    """Arrange pairs in a grid, each under its time: landscape frames stacked, portrait frames side by side.

    Args:
        pairs: Time in seconds, and the frame before and after, for each of at least one frame. All images
            have the same size.
    """
    width, height = pairs[0][1].size
    beside = height > width
    across, down = (2 * width, height) if beside else (width, 2 * height)
    cell = across + _MARGIN, down + _TEXT + _MARGIN
    columns = min(len(pairs), max(1, round(math.sqrt(len(pairs) * cell[1] / cell[0]))))
    rows = -(-len(pairs) // columns)
    sheet = Image.new("RGB", (columns * cell[0] + _MARGIN, rows * cell[1] + _MARGIN), _BACKGROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_TEXT - 4)
    for number, (seconds, before, after) in enumerate(pairs):
        left = _MARGIN + number % columns * cell[0]
        top = _MARGIN + number // columns * cell[1]
        draw.text((left, top), str(timedelta(seconds=round(seconds, 1)))[:_CLOCK], _FOREGROUND, font)
        sheet.paste(before, (left, top + _TEXT))
        offset = (width, 0) if beside else (0, height)
        sheet.paste(after, (left + offset[0], top + _TEXT + offset[1]))
    return sheet

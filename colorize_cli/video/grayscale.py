"""Detecting whether a video has color, from sampled frames."""

from collections.abc import Iterator

import av
import cv2
import numpy as np
from av.video.frame import VideoFrame

from colorize_cli.color.lab import Floats
from colorize_cli.color.ycbcr import rgb_of
from colorize_cli.image import grayscale
from colorize_cli.video.pixel_format import VideoInfo, plane_of
from colorize_cli.video.reader import VideoReader

_SAMPLES = 12


def is_color(video: VideoReader) -> bool:
    """Return True if any of twelve sampled frames is in color. Seeks in the video."""
    if video.info.layout.reduced is None:
        return False
    return any(_spread(frame, video.info) > grayscale.COLOR_SPREAD for frame in _some(video))


def _some(video: VideoReader) -> Iterator[VideoFrame]:
    """Yield the first frame and, if the video is seekable, frames at equal intervals."""
    yield video.first
    length = video.stream.duration or 0
    begun = video.stream.start_time or 0
    if not length and video.container.duration:
        length = round(video.container.duration / av.time_base / video.info.time_base)
    for index in range(1, _SAMPLES) if length else ():
        try:
            video.container.seek(begun + length * index // _SAMPLES, stream=video.stream)
            frame = next(video.container.decode(video.stream), None)
        except av.error.FFmpegError:  # a frame that cannot be found or decoded is no evidence
            continue
        if isinstance(frame, VideoFrame):
            yield video.planar(frame)


def _spread(frame: VideoFrame, info: VideoInfo) -> float:
    width, height = grayscale.small_size(frame.width, frame.height)
    planes = [_small(plane_of(frame, i), width, height) for i in range(3)]
    rgb = rgb_of(*info.coding.values(*planes), info.matrix)
    return grayscale.spread_of(np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8))


def _small(plane: np.ndarray, width: int, height: int) -> Floats:
    return np.asarray(cv2.resize(plane, (width, height), interpolation=cv2.INTER_AREA), np.float32)

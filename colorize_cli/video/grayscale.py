"""Whether a film is in colour, by some of its frames."""

from collections.abc import Iterator

import av
import cv2
import numpy as np
from av.video.frame import VideoFrame

from colorize_cli.color.lab import Floats
from colorize_cli.color.ycbcr import rgb_of
from colorize_cli.image import grayscale
from colorize_cli.video.pixel_format import Picture, plane_of
from colorize_cli.video.reader import Film

_PLACES = 12


def coloured(film: Film) -> bool:
    """Whether one of some frames, spread over a film, is in colour; it is rewound for that."""
    if film.picture.layout.reduced is None:
        return False
    return any(_spread(frame, film.picture) > grayscale.COLOURED for frame in _some(film))


def _some(film: Film) -> Iterator[VideoFrame]:
    """The first frame, and those found at equal distances, where the film can be searched."""
    yield film.first
    length = film.stream.duration or 0
    begun = film.stream.start_time or 0
    if not length and film.container.duration:
        length = round(film.container.duration / av.time_base / film.picture.time_base)
    for place in range(1, _PLACES) if length else ():
        try:
            film.container.seek(begun + length * place // _PLACES, stream=film.stream)
            frame = next(film.container.decode(film.stream), None)
        except av.error.FFmpegError:  # what cannot be found or decoded says nothing
            continue
        if isinstance(frame, VideoFrame):
            yield film.planar(frame)


def _spread(frame: VideoFrame, picture: Picture) -> float:
    width, height = grayscale.small_size(frame.width, frame.height)
    planes = [_small(plane_of(frame, i), width, height) for i in range(3)]
    rgb = rgb_of(*picture.coding.values(*planes), picture.matrix)
    return grayscale.spread_of(np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8))


def _small(plane: np.ndarray, width: int, height: int) -> Floats:
    return np.asarray(cv2.resize(plane, (width, height), interpolation=cv2.INTER_AREA), np.float32)

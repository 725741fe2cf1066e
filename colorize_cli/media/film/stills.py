"""Single frames of a film, as pictures."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from PIL import Image

from colorize_cli.media.film.source import Film, Picture, opened, plane_of
from colorize_cli.ycbcr import rgb_of


def stills(path: Path, places: Sequence[float], side: int) -> Iterator[Image.Image]:
    """Frames of a film as a player shows them.

    Args:
        path: The film.
        places: Which, as parts of its length, rising; the frame that is shown then, or the nearest after it
            that can be found.
        side: Longest side of the pictures, in pixels.

    Raises:
        ReadError: It is no film known here.
    """
    with opened(path) as film:
        for frame in frames_at(film, [place * film.seconds for place in places]):
            yield image_of(frame, film.picture, side)


def frames_at(film: Film, times: Sequence[float]) -> Iterator[VideoFrame]:
    """Frames of a film that is read no further.

    Args:
        film: Of a file that can be searched.
        times: Seconds after the first frame, rising. The frame that is shown then, or the first after it
            that can be found; the last found where there is none.

    Raises:
        ReadError: Its picture changes its size or its kind.
    """
    frame = film.first
    for seconds in times:
        if seconds:
            frame = next(film.between(film.time_of(seconds)), frame)
        yield frame


def image_of(frame: VideoFrame, picture: Picture, side: int) -> Image.Image:
    """A frame as a player shows it, its longest side at most `side` pixels, as RGB."""
    width, height = round(picture.width * picture.aspect), picture.height
    scale = min(1.0, side / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    planes = [_resized(plane_of(frame, index), size) for index in range(len(frame.planes))]
    if len(planes) == 1:
        neutral = np.full_like(planes[0], 2 ** (picture.layout.bits - 1))
        planes += [neutral, neutral]
    rgb = np.clip(rgb_of(*picture.coding.values(*planes), picture.matrix), 0, 1)
    turned = np.rot90(np.rint(rgb * 255).astype(np.uint8), picture.quarter_turns)
    return Image.fromarray(np.ascontiguousarray(turned))


def _resized(plane: npt.NDArray[np.generic], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    shrinks = size[0] * size[1] < plane.size
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(plane.astype(np.float32), size, interpolation=method), np.float32)

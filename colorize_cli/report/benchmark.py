"""Run several models on one picture, and measure time and colorfulness."""

import string
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from colorize_cli.color.lab import Bytes, colorfulness
from colorize_cli.color.resize import working_copy
from colorize_cli.compose import compose
from colorize_cli.core.errors import ColorizeError, ReadError, reason_of
from colorize_cli.core.formats import check_kind, is_video
from colorize_cli.core.settings import Settings, available_cores
from colorize_cli.image import reader
from colorize_cli.image.frame import Frame, to_image
from colorize_cli.image.thumbnail import reduced
from colorize_cli.inference import model
from colorize_cli.inference.model import Model


@dataclass(frozen=True)
class ModelResult:
    """The result of one model for one picture.

    Attributes:
        small: The colorized picture, reduced.
        seconds: Time to colorize the picture at full size: working copy, network and composition.
        network_seconds: The part of `seconds` spent in the network.
        colorfulness: Colorfulness of the picture at full size (Hasler and Suesstrunk, 2003).
    """

    small: Image.Image
    seconds: float
    network_seconds: float
    colorfulness: float


@dataclass(frozen=True)
class Comparison:
    """A picture with the results of all models.

    Attributes:
        path: The file.
        size: Width and height in pixels.
        pages: Number of pages in the file; only the first is compared.
        is_color: True if the picture is in color. It is treated as gray nevertheless.
        before: The gray picture, reduced.
        results: One result per model, in their order, or a reason in one line if the model failed.
    """

    path: Path
    size: tuple[int, int]
    pages: int
    is_color: bool
    before: Image.Image
    results: tuple[ModelResult | str, ...]


class BenchmarkedModel:
    """One of the compared models.

    Attributes:
        letter: Unique label, even if two models have the same file.
        named: The file or name that the user gave.
        path: The file; None for the bundled model.
        network: The loaded model.
        size: Short side of the network's input in pixels.
    """

    def __init__(
        self, letter: str, named: str, path: Path | None, network: Model, settings: Settings
    ) -> None:
        self.letter = letter
        self.named = named
        self.path = path
        self.network = network
        self.size = settings.size or network.info.working_size
        self._strength = settings.strength
        self._warm_shapes: set[tuple[int, ...]] = set()

    def colorize(self, frame: Frame, side: int) -> ModelResult:
        """Colorize a picture.

        For each new shape of the working copy, the picture is colorized twice. The first time, which includes
        allocating memory and building tables, is not measured.

        Args:
            frame: The picture.
            side: Longest side in pixels of the reduced result.

        Raises:
            ModelError: The output of the network is invalid.
            DeviceError: The network could not run; DeviceMemoryError if there is too little memory.
        """
        shape = working_copy(frame.lightness, self.size, self.network.info.multiple_of).shape
        if shape not in self._warm_shapes:
            self._colorize(frame)
            self._warm_shapes.add(shape)
        rgb, seconds, network_seconds = self._colorize(frame)
        return ModelResult(reduced(to_image(frame, rgb), side), seconds, network_seconds, colorfulness(rgb))

    def _colorize(self, frame: Frame) -> tuple[Bytes, float, float]:
        """Return uint8 RGB (H, W, 3), the total seconds, and the seconds of the network."""
        start = time.perf_counter()
        copy = working_copy(frame.lightness, self.size, self.network.info.multiple_of)
        copied = time.perf_counter()
        ab = self.network.predict(copy[None, None])[0]
        predicted = time.perf_counter()
        rgb = compose(frame.lightness, ab, self._strength)
        return rgb, time.perf_counter() - start, predicted - copied


def load(asked: Sequence[tuple[str, Path | None]], settings: Settings) -> list[BenchmarkedModel]:
    """Load the models.

    Args:
        asked: For each model, the file or name that the user gave, and its path; None for the bundled model.
        settings: Device, precision, size and strength for all models.

    Raises:
        ModelError: A model cannot be loaded. The text names the model.
        DeviceError: The device does not work. The text names the model.
    """
    candidates = []
    for letter, (named, path) in zip(string.ascii_uppercase, asked, strict=False):
        try:
            network = model.load(path, settings.device, available_cores(), settings.precision)
        except ColorizeError as error:
            raise type(error)(f"model {letter} ({named}): {error}") from error
        candidates.append(BenchmarkedModel(letter, named, path, network, settings))
    return candidates


def compare(path: Path, candidates: Sequence[BenchmarkedModel], max_pixels: int, side: int) -> Comparison:
    """Read a picture once and colorize it with each model.

    Args:
        path: The file.
        candidates: The models.
        max_pixels: Pictures with more pixels are rejected.
        side: Longest side in pixels of the reduced pictures.

    Returns:
        The results; for a model that fails, the reason.

    Raises:
        ReadError: The file cannot be read, or is a video.
    """
    check_kind(path)
    if is_video(path):
        raise ReadError("videos are not compared; use colorize --preview to see a model's result for a video")
    frame = reader.read(path, max_pixels)
    height, width = frame.lightness.shape
    results: list[ModelResult | str] = []
    for candidate in candidates:
        try:
            results.append(candidate.colorize(frame, side))
        except Exception as error:  # one bad model must not stop the others
            results.append(reason_of(error))
    before = reduced(to_image(frame, frame.lightness.levels()), side)
    return Comparison(path, (width, height), frame.pages, frame.is_color, before, tuple(results))

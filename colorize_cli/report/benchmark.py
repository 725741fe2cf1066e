"""Several models on one picture: what each makes of it, how long that takes, and how colourful it is."""

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
    """What a model made of a picture.

    Attributes:
        small: The coloured picture, made small.
        seconds: What colouring it at full size took: its small copy, the network, the composition.
        network_seconds: What the network took of that.
        colorfulness: Of the picture at full size.
    """

    small: Image.Image
    seconds: float
    network_seconds: float
    colorfulness: float


@dataclass(frozen=True)
class Comparison:
    """A picture, and what became of it with each model.

    Attributes:
        path: Its file.
        size: Its width and height in pixels.
        pages: How many there are in its file, of which this is the first.
        is_color: Whether it is in colour; it was taken as grey all the same.
        before: Its greys, made small.
        results: By model, in their order; why there is none, in one line, where one failed.
    """

    path: Path
    size: tuple[int, int]
    pages: int
    is_color: bool
    before: Image.Image
    results: tuple[ModelResult | str, ...]


class BenchmarkedModel:
    """One of several models that are compared.

    Attributes:
        letter: What tells it from the others, even where their files are the same.
        named: The file or name that it was asked for by.
        path: The file; None for the model that comes with this package.
        network: The loaded model.
        size: Short side in pixels of the copies that it sees.
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
        self._met: set[tuple[int, ...]] = set()

    def colorize(self, frame: Frame, side: int) -> ModelResult:
        """Colours a picture.

        Whenever it meets a copy of another shape it colours the picture twice, and the first time, in which
        memory is found and tables are made, does not count.

        Args:
            frame: The picture.
            side: Longest side in pixels of the small picture.

        Raises:
            ModelError: The network's answer cannot be used.
            DeviceError: The network could not be run; a DeviceMemoryError where its memory does not suffice.
        """
        shape = working_copy(frame.lightness, self.size, self.network.info.multiple_of).shape
        if shape not in self._met:
            self._colorize(frame)
            self._met.add(shape)
        rgb, seconds, network_seconds = self._colorize(frame)
        return ModelResult(reduced(to_image(frame, rgb), side), seconds, network_seconds, colorfulness(rgb))

    def _colorize(self, frame: Frame) -> tuple[Bytes, float, float]:
        """The colours (H, W, 3), seconds in all, and those of the network."""
        begun = time.perf_counter()
        copy = working_copy(frame.lightness, self.size, self.network.info.multiple_of)
        copied = time.perf_counter()
        ab = self.network.predict(copy[None, None])[0]
        answered = time.perf_counter()
        rgb = compose(frame.lightness, ab, self._strength)
        return rgb, time.perf_counter() - begun, answered - copied


def load(asked: Sequence[tuple[str, Path | None]], settings: Settings) -> list[BenchmarkedModel]:
    """Loads the models.

    Args:
        asked: For each what it was asked for by, and its file; None for the one that comes with this package.
        settings: Device, precision, size and strength, for all of them.

    Raises:
        ModelError: One cannot be loaded. Like the next it says which.
        DeviceError: The device asked for does not work.
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
    """Reads a picture once and has each model colour it.

    Args:
        path: The file.
        candidates: The models.
        max_pixels: Pictures of more are refused.
        side: Longest side in pixels of the small pictures.

    Raises:
        ReadError: It cannot be read, or is a film. That a model fails is its result.
    """
    check_kind(path)
    if is_video(path):
        raise ReadError("films are not compared; colorize --preview shows what a model makes of one")
    frame = reader.read(path, max_pixels)
    height, width = frame.lightness.shape
    results: list[ModelResult | str] = []
    for candidate in candidates:
        try:
            results.append(candidate.colorize(frame, side))
        except Exception as error:  # whatever one raises, the others are compared
            results.append(reason_of(error))
    before = reduced(to_image(frame, frame.lightness.levels()), side)
    return Comparison(path, (width, height), frame.pages, frame.is_color, before, tuple(results))

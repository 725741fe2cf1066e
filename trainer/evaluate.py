"""Evaluate a model on whole pictures, colorized as by `colorize`, and compare with the gray pictures.

A new metric is a function in `metrics` or `realism` and a field in `scores`.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from colorize_cli.color.lightness import Lightness
from colorize_cli.color.resize import working_copy
from colorize_cli.compose import compose
from colorize_cli.image.frame import lightness_of
from colorize_cli.inference.adapters import ModelInfo
from colorize_cli.inference.model import load
from trainer.checkpoint import load_generator
from trainer.data.cifar10 import is_cifar10, read_cifar10
from trainer.data.dataset import load_crops
from trainer.data.prepare import MANIFEST_NAME, DataError, read_sources
from trainer.lab import rgb_to_lab
from trainer.metrics import SSIM_WINDOW, colorfulness, find_strength, psnr
from trainer.models import Generator
from trainer.realism import Recognizer, join, probability_of_true_class
from trainer.sample_grid import save_sheet
from trainer.scores import Evaluation, GainAtShare, Tally, Truth, mean_ab

_LARGE_TILE = 192  # pixels; small pictures are enlarged to twice their size, up to this
_BATCH_PIXELS = 1 << 20


class Predictor(Protocol):
    """An exported model, or any other predictor of chroma."""

    @property
    def info(self) -> ModelInfo:
        """Name, working size and other properties of the model."""

    def predict(self, lightness: NDArray[np.float32]) -> NDArray[np.float32]:
        """Predict chroma: (N, 1, H, W) L* in [0, 100] => (N, 2, h, w) a*, b* in CIE units."""


def load_predictor(path: Path) -> Predictor:
    """Load an ONNX file, or the averaged generator of a checkpoint (.pt) or weights file (.safetensors).

    Raises:
        CheckpointError: if a checkpoint or weights file cannot be read.
        ColorizeError: if an ONNX file cannot be read, or `colorize` does not support its kind.
    """
    if path.suffix in (".pt", ".safetensors"):
        generator, config = load_generator(path)
        size = config.phases[-1].crop_size
        info = ModelInfo(path.stem, size, generator.multiple_of, "", "", config.hash)
        return _Unexported(info, generator)
    return load(path, "auto", precision="fp32")


@dataclass(frozen=True)
class _Unexported:
    """A `Predictor` that runs a generator in torch on the CPU."""

    info: ModelInfo
    generator: Generator

    def predict(self, lightness: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(self.generator(torch.from_numpy(lightness)).float().numpy())


@dataclass(frozen=True)
class Sample:
    """A color picture, and the chroma predicted from its lightness."""

    name: str
    truth: NDArray[np.uint8]
    """(H, W, 3) sRGB."""
    lightness: Lightness
    """(H, W), the lightness of `truth`."""
    ab: NDArray[np.float32]
    """(2, h, w) predicted a*, b* in CIE units, at the network's resolution."""

    def render(self, strength: float) -> NDArray[np.uint8]:
        """Compose the picture as `colorize --strength` does: (H, W, 3) sRGB."""
        return compose(self.lightness, self.ab, strength)


def predict_samples(
    sources: Iterable[Path],
    model: Predictor,
    size: int | None = None,
    progress: Callable[[], None] = lambda: None,
    skipped: Callable[[str, str], None] = lambda _name, _reason: None,
) -> list[Sample]:
    """Read pictures and predict their chroma.

    Args:
        sources: folders, tar files and single files as for `prepare`, folders written by `prepare`, or
            CIFAR-10 (its test split).
        model: the predictor.
        size: short side of the network input, in pixels; None for the model's working size.
        progress: called once for every measured picture.
        skipped: called with the name of a picture that is unreadable or too small for SSIM, and the reason.

    Raises:
        DataError: if a source cannot be read, or there is no usable picture.
    """
    samples = []
    for name, picture in read_pictures(sources, skipped):
        if min(picture.size) < SSIM_WINDOW:
            skipped(name, f"smaller than {SSIM_WINDOW} pixels")
            continue
        lightness = lightness_of(picture, None)
        small = working_copy(lightness, size or model.info.working_size, model.info.multiple_of)
        ab = model.predict(small[None, None])[0]
        samples.append(Sample(name, np.asarray(picture), lightness, ab))
        progress()
    if not samples:
        raise DataError(f"{', '.join(map(str, sources))}: no usable pictures")
    return samples


def evaluate(
    samples: Sequence[Sample],
    strength: float = 1.0,
    shares: Sequence[float] = (),
    recognizer: Recognizer | None = None,
) -> Evaluation:
    """Measure the colorized pictures against the true ones.

    Args:
        samples: pictures with predicted chroma.
        strength: factor on the predicted chroma.
        shares: shares of the true colorfulness at which to measure the gain over gray as well.
        recognizer: classifier that measures realism; None to skip it.

    Raises:
        DataError: if all pictures are gray.
    """
    model, gray = Tally(recognizer), Tally(recognizer)
    colors, recognized = [], []
    for batch in _batches(samples):
        true = _to_tensor([sample.truth for sample in batch])
        colors.append(torch.stack((colorfulness(true), *mean_ab(rgb_to_lab(true)))))
        if recognizer is not None:
            recognized.append(recognizer.recognize(true))
        model.add(_to_tensor([sample.render(strength) for sample in batch]), true)
        gray.add(_to_tensor([sample.render(0.0) for sample in batch]), true)
    true_recognition = join(recognized) if recognized else None
    seen = None
    if true_recognition is not None:
        seen = probability_of_true_class(true_recognition, true_recognition)
    mean_colorfulness, mean_a, mean_b = torch.cat(colors, dim=1).double().mean(1).tolist()
    truth = Truth(mean_colorfulness, mean_a, mean_b, seen)
    if not truth.colorfulness:
        raise DataError("all pictures are gray; evaluation needs color pictures")
    gray_scores = gray.scores(truth, true_recognition)
    colorfulness_at = _colorfulness_by_strength(samples)
    gains = tuple(
        _gain_at(samples, share, find_strength(colorfulness_at, share * truth.colorfulness), gray_scores.psnr)
        for share in shares
    )
    return Evaluation(
        len(samples), strength, model.scores(truth, true_recognition), gray_scores, truth, gains
    )


def _gain_at(
    samples: Sequence[Sample], share: float, strength: float | None, gray_psnr: float
) -> GainAtShare:
    """Measure the gain over gray at the strength that gives a share of the true colorfulness."""
    if strength is None:
        return GainAtShare(share, None, None)
    found = [
        psnr(
            _to_tensor([sample.render(strength) for sample in batch]),
            _to_tensor([sample.truth for sample in batch]),
        )
        for batch in _batches(samples)
    ]
    return GainAtShare(share, strength, float(torch.cat(found).double().mean()) - gray_psnr)


def strength_for(samples: Sequence[Sample], share: float) -> float:
    """Find the strength at which the mean colorfulness is `share` of the true pictures'.

    Raises:
        DataError: if the predicted chroma is too pale, even at the maximum strength.
    """
    true = _mean_colorfulness(samples, lambda sample: sample.truth)
    strength = find_strength(_colorfulness_by_strength(samples), share * true)
    if strength is None:
        raise DataError(
            f"the predicted chroma is too pale for {share:.0%} of the true colorfulness; use a smaller share"
        )
    return strength


def _colorfulness_by_strength(samples: Sequence[Sample]) -> Callable[[float], float]:
    """Return the mean colorfulness as a function of the strength. Each strength is rendered once."""
    return functools.cache(
        lambda strength: _mean_colorfulness(samples, lambda sample: sample.render(strength))
    )


def _mean_colorfulness(samples: Sequence[Sample], picture: Callable[[Sample], NDArray[np.uint8]]) -> float:
    found = [colorfulness(_to_tensor([picture(sample) for sample in batch])) for batch in _batches(samples)]
    return float(torch.cat(found).double().mean())


def write_sheet(samples: Sequence[Sample], strength: float, path: Path, pictures: int = 24) -> None:
    """Write a PNG of gray, colorized and true pictures, cut to squares and evenly spread over the samples.

    At most `pictures` samples are shown.
    """
    chosen = [samples[len(samples) * i // pictures] for i in range(min(pictures, len(samples)))]
    if len(samples) <= pictures:
        chosen = list(samples)
    side = min(_LARGE_TILE, max(2 * min(sample.truth.shape[:2]) for sample in chosen))
    kinds = (
        [sample.render(0.0) for sample in chosen],
        [sample.render(strength) for sample in chosen],
        [sample.truth for sample in chosen],
    )
    save_sheet(path, *(_to_tensor([_square(picture, side) for picture in kind]) for kind in kinds))


def read_pictures(
    sources: Iterable[Path], skipped: Callable[[str, str], None]
) -> Iterator[tuple[str, Image.Image]]:
    """Yield name and picture, upright RGB, for every readable picture of sources as for `predict_samples`.

    Args:
        sources: as for `predict_samples`.
        skipped: called with the name of an unreadable picture, and the reason.

    Raises:
        DataError: if a source cannot be read.
    """
    for source in sources:
        if (source / MANIFEST_NAME).is_file():
            crops = load_crops(source, torch.device("cpu")).pixels.permute(0, 2, 3, 1).numpy()
        elif source.exists() and is_cifar10(source):
            crops = read_cifar10(source)["test"]
        else:
            yield from _decoded(source, skipped)
            continue
        for number, crop in enumerate(crops):
            yield f"{source}:{number}", Image.fromarray(np.ascontiguousarray(crop))


def _decoded(source: Path, skipped: Callable[[str, str], None]) -> Iterator[tuple[str, Image.Image]]:
    for name, data in read_sources([source]):
        try:
            with Image.open(io.BytesIO(data)) as opened:
                picture = ImageOps.exif_transpose(opened).convert("RGB")
        except Exception as error:  # decoders raise all kinds of errors on damaged data
            skipped(name, f"unreadable ({type(error).__name__})")
            continue
        yield name, picture


def _batches(samples: Sequence[Sample]) -> Iterator[list[Sample]]:
    """Yield batches of consecutive samples of equal shape, of about `_BATCH_PIXELS` at most."""
    for shape, run in groupby(samples, lambda sample: sample.truth.shape):
        alike = list(run)
        count = max(1, _BATCH_PIXELS // (shape[0] * shape[1]))
        for start in range(0, len(alike), count):
            yield alike[start : start + count]


def _to_tensor(pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Stack N pictures (H, W, 3) uint8 => (N, 3, H, W) float in [0, 1]."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255


def _square(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    middle = picture[top : top + side, left : left + side]
    method = cv2.INTER_AREA if side >= size else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(middle, (size, size), interpolation=method), np.uint8)

"""A model over whole pictures, as `colorize` would colour them, beside leaving them grey."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

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
from trainer.lab import ciede2000, rgb_to_lab
from trainer.metrics import (
    SSIM_WINDOW,
    ChromaStatistics,
    accuracy,
    bisect_strength,
    colourfulness,
    psnr,
    ssim,
)
from trainer.models import Generator
from trainer.sample_grid import save_sheet

_LARGE_TILE = 192  # pixels; small pictures are shown at twice their size, up to this
_BATCH_PIXELS = 1 << 20


class Predictor(Protocol):
    """An exported model, or whatever else paints chroma."""

    @property
    def info(self) -> ModelInfo:
        """What it says of itself."""

    def predict(self, lightness: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, 1, H, W) L* to (N, 2, h, w) a*, b*."""


def load_predictor(path: Path) -> Predictor:
    """An ONNX file, or the averaged generator of a checkpoint (.pt) or weights file (.safetensors).

    Raises:
        CheckpointError: if it is neither.
        ColorizeError: if it is an ONNX file of a kind that `colorize` does not know.
    """
    if path.suffix in (".pt", ".safetensors"):
        generator, config = load_generator(path)
        size = config.phases[-1].crop_size
        info = ModelInfo(path.stem, size, generator.multiple_of, "", "", config.hash)
        return _Unexported(info, generator)
    return load(path, "auto", precision="fp32")


@dataclass(frozen=True)
class _Unexported:
    """A generator in torch, on the CPU, as a `Predictor`."""

    info: ModelInfo
    generator: Generator

    def predict(self, lightness: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(self.generator(torch.from_numpy(lightness)).float().numpy())


@dataclass(frozen=True)
class Sample:
    """A colour picture and what the model says of its lightness."""

    name: str
    truth: NDArray[np.uint8]
    """(H, W, 3) sRGB."""
    lightness: Lightness
    """Of the truth, (H, W)."""
    ab: NDArray[np.float32]
    """(2, h, w) predicted a*, b* at the network's resolution."""

    def render(self, strength: float) -> NDArray[np.uint8]:
        """(H, W, 3) sRGB as `colorize --strength` gives it."""
        return compose(self.lightness, self.ab, strength)


@dataclass(frozen=True)
class Scores:
    """How close coloured pictures are to the truth: means over pictures, and figures of the whole set.

    RGB is 8-bit sRGB as written to a file, Lab is computed from it.
    """

    psnr: float
    """In dB, over the three channels of a picture."""
    ssim: float
    """Structural similarity (Wang et al. 2004), the mean over the channels."""
    mae_rgb: float
    """Mean absolute error of the channels, in per cent of full scale."""
    mae_ab: float
    """Mean absolute error of a* and b*, in CIE units."""
    accuracy_2: float
    """Per cent of pixels with every sRGB channel within 2 % of full scale (see `metrics.accuracy`)."""
    accuracy_5: float
    """The same within 5 %."""
    ciede2000: float
    """Colour difference."""
    colourfulness: float
    """Hasler & Suesstrunk 2003."""
    colourfulness_gap: float
    """|mean colourfulness - mean colourfulness of the truth|."""
    auc: float
    """Area under the curve of ab error (Zhang et al. 2016), in per cent."""
    auc_balanced: float
    """The same with all true colours counting alike, in per cent."""
    jensen_shannon: float
    """Distance of the histograms of ab, in [0, 1]."""
    mean_a: float
    mean_b: float


@dataclass(frozen=True)
class Truth:
    """What there is to say of the true pictures alone; the fields are those of `Scores`."""

    colourfulness: float
    mean_a: float
    mean_b: float


@dataclass(frozen=True)
class Evaluation:
    """A model's scores beside those of the same pictures left grey."""

    pictures: int
    strength: float
    """Factor on the predicted chroma."""
    model: Scores
    grey: Scores
    truth: Truth

    @property
    def gain(self) -> float:
        """PSNR above that of the grey pictures, in dB."""
        return self.model.psnr - self.grey.psnr

    @property
    def colourfulness_share(self) -> float:
        """Colourfulness over that of the truth."""
        return self.model.colourfulness / self.truth.colourfulness

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self) | {"gain": self.gain, "colourfulness_share": self.colourfulness_share}

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Name, model, grey and truth of every figure, for a table."""
        model, grey, truth = asdict(self.model), asdict(self.grey), asdict(self.truth)
        return [
            (name, f"{model[name]:.3f}", f"{grey[name]:.3f}", f"{truth[name]:.3f}" if name in truth else "")
            for name in model
        ]


def predict_samples(
    sources: Iterable[Path],
    model: Predictor,
    size: int | None = None,
    progress: Callable[[], None] = lambda: None,
) -> list[Sample]:
    """Read pictures, and predict their chroma.

    Args:
        sources: folders, tar files and single files as for `prepare`; folders that it made; CIFAR-10, of
            which the test split is taken.
        model: what predicts.
        size: short side in pixels of the copy that the network sees; None for the model's own working size.
        progress: called once for every picture.

    Raises:
        DataError: if a source or a picture cannot be read or is too small for SSIM, or there is none.
    """
    samples = []
    for name, picture in read_pictures(sources):
        if min(picture.size) < SSIM_WINDOW:
            raise DataError(f"{name}: {picture.width} x {picture.height} is too small to be measured")
        lightness = lightness_of(picture, None)
        small = working_copy(lightness, size or model.info.working_size, model.info.multiple_of)
        ab = model.predict(small[None, None])[0]
        samples.append(Sample(name, np.asarray(picture), lightness, ab))
        progress()
    if not samples:
        raise DataError(f"{', '.join(map(str, sources))}: no pictures")
    return samples


def evaluate(samples: Sequence[Sample], strength: float = 1.0) -> Evaluation:
    """Measure the pictures coloured at a strength.

    Raises:
        DataError: if there is no colour in any of them.
    """
    model, grey = _Tally(), _Tally()
    colours = []
    for batch in _batches(samples):
        true = _to_tensor([sample.truth for sample in batch])
        colours.append(torch.stack((colourfulness(true), *_mean_ab(rgb_to_lab(true)))))
        model.add(_to_tensor([sample.render(strength) for sample in batch]), true)
        grey.add(_to_tensor([sample.render(0.0) for sample in batch]), true)
    truth = Truth(*torch.cat(colours, dim=1).double().mean(1).tolist())
    if not truth.colourfulness:
        raise DataError("the pictures are all grey: there is no colour to compare with")
    return Evaluation(len(samples), strength, model.scores(truth), grey.scores(truth), truth)


class _Tally:
    """Collects the scores of one way to colour the pictures."""

    def __init__(self) -> None:
        self._rows: dict[str, list[Tensor]] = {}
        self._chroma = ChromaStatistics()

    def add(self, coloured: Tensor, truth: Tensor) -> None:
        """Measure (N, 3, H, W) sRGB in [0, 1] against the truth."""
        lab, true_lab = rgb_to_lab(coloured), rgb_to_lab(truth)
        whole = (1, 2, 3)
        rows = {
            "psnr": psnr(coloured, truth),
            "ssim": ssim(coloured, truth),
            "mae_rgb": 100 * (coloured - truth).abs().mean(whole),
            "mae_ab": (lab - true_lab)[:, 1:].abs().mean(whole),
            "accuracy_2": 100 * accuracy(coloured, truth, 0.02),
            "accuracy_5": 100 * accuracy(coloured, truth, 0.05),
            "ciede2000": ciede2000(lab, true_lab).mean(whole),
            "colourfulness": colourfulness(coloured),
            **dict(zip(("mean_a", "mean_b"), _mean_ab(lab), strict=True)),
        }
        for name, values in rows.items():
            self._rows.setdefault(name, []).append(values)
        self._chroma.add(lab[:, 1:], true_lab[:, 1:])

    def scores(self, truth: Truth) -> Scores:
        means = {name: float(torch.cat(values).double().mean()) for name, values in self._rows.items()}
        return Scores(
            colourfulness_gap=abs(means["colourfulness"] - truth.colourfulness),
            auc=100 * self._chroma.auc,
            auc_balanced=100 * self._chroma.auc_balanced,
            jensen_shannon=self._chroma.jensen_shannon,
            **means,
        )


def _mean_ab(lab: Tensor) -> tuple[Tensor, Tensor]:
    """Mean a* and b* of each picture: (N, 3, H, W) => twice (N,)."""
    _, a, b = lab.mean((2, 3)).unbind(1)
    return a, b


def strength_for(samples: Sequence[Sample], share: float) -> float:
    """The strength at which the mean colourfulness is `share` of the true pictures'."""

    def mean_colourfulness(render: Callable[[Sample], NDArray[np.uint8]]) -> float:
        parts = [
            colourfulness(_to_tensor([render(sample) for sample in batch])) for batch in _batches(samples)
        ]
        return float(torch.cat(parts).double().mean())

    target = share * mean_colourfulness(lambda sample: sample.truth)
    return bisect_strength(
        lambda strength: mean_colourfulness(lambda sample: sample.render(strength)), target
    )


def write_sheet(samples: Sequence[Sample], strength: float, path: Path, pictures: int = 24) -> None:
    """A PNG of so many pictures spread over the samples, cut to squares: grey, coloured, true."""
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


def read_pictures(sources: Iterable[Path]) -> Iterator[tuple[str, Image.Image]]:
    """The names of pictures and the pictures, RGB and upright, of sources as for `predict_samples`.

    Raises:
        DataError: if a source or a picture cannot be read.
    """
    for source in sources:
        if (source / MANIFEST_NAME).is_file():
            crops = load_crops(source, torch.device("cpu")).pixels.permute(0, 2, 3, 1).numpy()
        elif source.exists() and is_cifar10(source):
            crops = read_cifar10(source)["test"]
        else:
            yield from _decoded(source)
            continue
        for number, crop in enumerate(crops):
            yield f"{source}:{number}", Image.fromarray(np.ascontiguousarray(crop))


def _decoded(source: Path) -> Iterator[tuple[str, Image.Image]]:
    for name, data in read_sources([source]):
        try:
            with Image.open(io.BytesIO(data)) as opened:
                yield name, ImageOps.exif_transpose(opened).convert("RGB")
        except (OSError, ValueError, SyntaxError) as error:
            raise DataError(f"{name}: unreadable ({error})") from error


def _batches(samples: Sequence[Sample]) -> Iterator[list[Sample]]:
    """Neighbours of one shape, at most about `_BATCH_PIXELS` at a time."""
    for shape, run in groupby(samples, lambda sample: sample.truth.shape):
        alike = list(run)
        count = max(1, _BATCH_PIXELS // (shape[0] * shape[1]))
        for start in range(0, len(alike), count):
            yield alike[start : start + count]


def _to_tensor(pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
    """N times HWC uint8 => NCHW float in [0, 1]."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255


def _square(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    middle = picture[top : top + side, left : left + side]
    method = cv2.INTER_AREA if side >= size else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(middle, (size, size), interpolation=method), np.uint8)

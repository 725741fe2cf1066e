"""An exported model over whole pictures, as `colorize` would colour them, beside leaving them grey."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import fmean

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from colorize_cli.color import Lightness
from colorize_cli.compose import compose
from colorize_cli.media.frame import lightness_of
from colorize_cli.model import Model
from colorize_cli.working import working_copy
from trainer.data.prepare import DataError, read_sources
from trainer.lab import rgb_to_lab
from trainer.metrics import bisect_strength, colourfulness, psnr
from trainer.sheet import save_sheet

_SHEET_SIDE = 192
_SHEET_PICTURES = 24


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
class Figures:
    """Means over the pictures. PSNR in dB over the three sRGB channels; a* and b* in CIE units."""

    pictures: int
    strength: float
    """Factor on the predicted chroma."""
    psnr: float
    psnr_grey: float
    """Of the pictures left grey."""
    gain: float
    """`psnr` - `psnr_grey`."""
    colourfulness: float
    """Hasler & Suesstrunk 2003."""
    colourfulness_true: float
    colourfulness_share: float
    """`colourfulness` / `colourfulness_true`."""
    mean_a: float
    mean_a_true: float
    mean_b: float
    mean_b_true: float


def predict_samples(
    sources: Iterable[Path],
    model: Model,
    size: int | None = None,
    progress: Callable[[], None] = lambda: None,
) -> list[Sample]:
    """Read the pictures of folders, tar files and single files, and predict their chroma.

    Args:
        sources: as for `prepare`.
        model: an exported model.
        size: short side in pixels of the copy that the network sees; None for the model's own working size.
        progress: called once for every picture.

    Raises:
        DataError: if a source or a picture cannot be read, or there is none.
    """
    samples = []
    for name, data in read_sources(sources):
        try:
            with Image.open(io.BytesIO(data)) as opened:
                picture = ImageOps.exif_transpose(opened).convert("RGB")
        except (OSError, ValueError, SyntaxError) as error:
            raise DataError(f"{name}: unreadable ({error})") from error
        lightness = lightness_of(picture, None)
        small = working_copy(lightness, size or model.card.working_size, model.card.multiple_of)
        ab = model.predict(small[None, None])[0]
        samples.append(Sample(name, np.asarray(picture), lightness, ab))
        progress()
    if not samples:
        raise DataError(f"{', '.join(map(str, sources))}: no pictures")
    return samples


def evaluate(samples: Sequence[Sample], strength: float = 1.0) -> Figures:
    """Measure the pictures coloured at a strength.

    Raises:
        DataError: if there is no colour in any of them.
    """
    rows = [_measure_one(sample, strength) for sample in samples]
    means = {name: fmean(row[name] for row in rows) for name in rows[0]}
    if not means["colourfulness_true"]:
        raise DataError("the pictures are all grey: there is no colour to compare with")
    return Figures(
        pictures=len(rows),
        strength=strength,
        gain=means["psnr"] - means["psnr_grey"],
        colourfulness_share=means["colourfulness"] / means["colourfulness_true"],
        **means,
    )


def strength_for(samples: Sequence[Sample], share: float) -> float:
    """The strength at which the mean colourfulness is `share` of the true pictures'."""
    target = share * fmean(_colourfulness(sample.truth) for sample in samples)
    return bisect_strength(
        lambda strength: fmean(_colourfulness(sample.render(strength)) for sample in samples), target
    )


def write_sheet(samples: Sequence[Sample], strength: float, path: Path) -> None:
    """A PNG of up to 24 pictures spread over the samples, cut to squares: grey, coloured, true."""
    chosen = samples[:: max(1, len(samples) // _SHEET_PICTURES)][:_SHEET_PICTURES]
    kinds = (
        [sample.render(0.0) for sample in chosen],
        [sample.render(strength) for sample in chosen],
        [sample.truth for sample in chosen],
    )
    save_sheet(path, *(torch.cat([_to_tensor(_square(picture)) for picture in kind]) for kind in kinds))


def rows_of(figures: Figures) -> list[tuple[str, float]]:
    """Names and values, for a table."""
    return [(field.name, getattr(figures, field.name)) for field in fields(figures)]


def _measure_one(sample: Sample, strength: float) -> dict[str, float]:
    truth, coloured = _to_tensor(sample.truth), _to_tensor(sample.render(strength))
    _, a, b = rgb_to_lab(coloured).mean(dim=(0, 2, 3)).tolist()
    _, a_true, b_true = rgb_to_lab(truth).mean(dim=(0, 2, 3)).tolist()
    return {
        "psnr": float(psnr(coloured, truth)),
        "psnr_grey": float(psnr(_to_tensor(sample.render(0.0)), truth)),
        "colourfulness": float(colourfulness(coloured)),
        "colourfulness_true": float(colourfulness(truth)),
        "mean_a": a,
        "mean_a_true": a_true,
        "mean_b": b,
        "mean_b_true": b_true,
    }


def _colourfulness(picture: NDArray[np.uint8]) -> float:
    return float(colourfulness(_to_tensor(picture)))


def _to_tensor(picture: NDArray[np.uint8]) -> Tensor:
    """HWC uint8 => 1CHW float in [0, 1]."""
    return torch.from_numpy(picture.copy()).permute(2, 0, 1).unsqueeze(0).float() / 255


def _square(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    middle = picture[top : top + side, left : left + side]
    return np.asarray(cv2.resize(middle, (_SHEET_SIDE, _SHEET_SIDE), interpolation=cv2.INTER_AREA), np.uint8)

"""The scores of an evaluation: fidelity and realism of colorized pictures."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from trainer.lab import ciede2000, rgb_to_lab
from trainer.metrics import ChromaStatistics, accuracy, colorfulness, psnr, ssim
from trainer.realism import (
    Recognition,
    Recognizer,
    join,
    kernel_inception_distance,
    probability_of_true_class,
)


@dataclass(frozen=True)
class Scores:
    """Fidelity and realism of colorized pictures: means over pictures, and statistics of the whole set.

    RGB values are 8-bit sRGB as written to a file; Lab values are computed from them.
    """

    psnr: float
    """Peak signal-to-noise ratio over the three channels, in dB."""
    ssim: float
    """Structural similarity (Wang et al. 2004), the mean over the channels."""
    mae_rgb: float
    """Mean absolute error of the channels, in percent of full scale."""
    mae_ab: float
    """Mean absolute error of a* and b*, in CIE units."""
    accuracy_2: float
    """Percentage of pixels with every sRGB channel within 2 % of full scale (see `metrics.accuracy`)."""
    accuracy_5: float
    """Percentage of pixels with every sRGB channel within 5 % of full scale."""
    ciede2000: float
    """Color difference CIEDE2000 (CIE 142-2001)."""
    colorfulness: float
    """Colorfulness by Hasler & Suesstrunk 2003 (see `metrics.colorfulness`)."""
    colorfulness_gap: float
    """Absolute difference of the mean colorfulness from that of the truth."""
    auc: float
    """Area under the curve of ab error (Zhang et al. 2016), in percent."""
    auc_balanced: float
    """Area under the same curve with equal weight for all true colors, in percent."""
    jensen_shannon: float
    """Jensen-Shannon distance of the histograms of ab, in [0, 1]."""
    mean_a: float
    """Mean a*, in CIE units."""
    mean_b: float
    """Mean b*, in CIE units."""
    kid: float | None = None
    """Kernel Inception Distance to the truth, times 1000 (see `realism`); None if not measured."""
    true_class: float | None = None
    """Mean probability of the class recognized in the true picture, in [0, 1]; None if not measured."""


@dataclass(frozen=True)
class Truth:
    """Statistics of the true pictures alone, with the same fields as in `Scores`."""

    colorfulness: float
    mean_a: float
    mean_b: float
    true_class: float | None = None


@dataclass(frozen=True)
class GainAtShare:
    """Fidelity at a given colorfulness, for the comparison of models at equal colorfulness."""

    share: float
    """Mean colorfulness relative to the true pictures."""
    strength: float | None
    """Factor on the predicted chroma that gives this share; None if the prediction is too pale."""
    gain: float | None
    """PSNR minus the PSNR of the gray pictures, in dB; None without a strength."""


@dataclass(frozen=True)
class Evaluation:
    """The scores of a model, beside the scores of the same pictures left gray."""

    pictures: int
    strength: float
    """Factor on the predicted chroma."""
    model: Scores
    gray: Scores
    truth: Truth
    gains: tuple[GainAtShare, ...] = ()
    """Gains at several shares of the true colorfulness."""

    @property
    def gain(self) -> float:
        """PSNR minus the PSNR of the gray pictures, in dB."""
        return self.model.psnr - self.gray.psnr

    @property
    def colorfulness_share(self) -> float:
        """Colorfulness relative to the true pictures."""
        return self.model.colorfulness / self.truth.colorfulness

    def to_json(self) -> dict[str, Any]:
        """Return all scores as JSON values."""
        return asdict(self) | {"gain": self.gain, "colorfulness_share": self.colorfulness_share}

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Return the rows of a table: name, model, gray and truth of every measured score."""
        model, gray, truth = asdict(self.model), asdict(self.gray), asdict(self.truth)
        rows = [
            (name, _cell(value), _cell(gray[name]), _cell(truth.get(name)))
            for name, value in model.items()
            if value is not None
        ]
        gains = [
            (f"gain at {at.share:.0%} colorfulness", f"{at.gain:+.3f}", "", "")
            for at in self.gains
            if at.gain is not None
        ]
        return rows + gains


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


class Tally:
    """Accumulates the scores of one set of colorized pictures.

    Args:
        recognizer: classifier that measures realism; None to skip it.
    """

    def __init__(self, recognizer: Recognizer | None) -> None:
        self._recognizer = recognizer
        self._recognized: list[Recognition] = []
        self._rows: dict[str, list[Tensor]] = {}
        self._chroma = ChromaStatistics()

    def add(self, colorized: Tensor, truth: Tensor) -> None:
        """Measure colorized pictures against the truth, both (N, 3, H, W) sRGB in [0, 1]."""
        lab, true_lab = rgb_to_lab(colorized), rgb_to_lab(truth)
        whole = (1, 2, 3)
        rows = {
            "psnr": psnr(colorized, truth),
            "ssim": ssim(colorized, truth),
            "mae_rgb": 100 * (colorized - truth).abs().mean(whole),
            "mae_ab": (lab - true_lab)[:, 1:].abs().mean(whole),
            "accuracy_2": 100 * accuracy(colorized, truth, 0.02),
            "accuracy_5": 100 * accuracy(colorized, truth, 0.05),
            "ciede2000": ciede2000(lab, true_lab).mean(whole),
            "colorfulness": colorfulness(colorized),
            **dict(zip(("mean_a", "mean_b"), mean_ab(lab), strict=True)),
        }
        for name, values in rows.items():
            self._rows.setdefault(name, []).append(values)
        self._chroma.add(lab[:, 1:], true_lab[:, 1:])
        if self._recognizer is not None:
            self._recognized.append(self._recognizer.recognize(colorized))

    def scores(self, truth: Truth, true_recognition: Recognition | None) -> Scores:
        """Summarize the added pictures.

        Args:
            truth: statistics of the true pictures.
            true_recognition: the classifier's results on the true pictures, in the same order.
        """
        means = {name: float(torch.cat(values).double().mean()) for name, values in self._rows.items()}
        distance = probability = None
        if true_recognition is not None:
            recognition = join(self._recognized)
            distance = kernel_inception_distance(recognition, true_recognition)
            probability = probability_of_true_class(recognition, true_recognition)
        return Scores(
            colorfulness_gap=abs(means["colorfulness"] - truth.colorfulness),
            auc=100 * self._chroma.auc,
            auc_balanced=100 * self._chroma.auc_balanced,
            jensen_shannon=self._chroma.jensen_shannon,
            kid=None if distance is None else 1000 * distance,
            true_class=probability,
            **means,
        )


def mean_ab(lab: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the mean a* and b* of each picture: (N, 3, H, W) => twice (N,)."""
    _, a, b = lab.mean((2, 3)).unbind(1)
    return a, b

"""Sample sheets: gray, colorized and true pictures in one image, for visual comparison."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

_COLUMNS = 8
_MANY, _MANY_COLUMNS = 24, 20  # above 24 pictures, 20 columns


def save_sheet(path: Path, gray: Tensor, predicted: Tensor, true: Tensor) -> None:
    """Write a PNG with one column per picture, in bands of three rows: gray, colorized, true.

    Args:
        path: the PNG to write.
        gray: the gray pictures, (N, 3, H, W) sRGB in [0, 1].
        predicted: the colorized pictures, of the same shape.
        true: the true pictures, of the same shape.
    """
    columns = _COLUMNS if len(gray) <= _MANY else _MANY_COLUMNS
    bands = []
    for start in range(0, len(gray), columns):
        rows = [torch.cat(list(kind[start : start + columns]), dim=2) for kind in (gray, predicted, true)]
        band = torch.cat(rows, dim=1)
        missing = columns * gray.shape[-1] - band.shape[-1]
        bands.append(torch.nn.functional.pad(band, (0, missing)))
    sheet = torch.cat(bands, dim=1).clamp(0, 1).mul(255).round().byte().permute(1, 2, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(sheet.cpu().numpy())).save(path)

"""Sample sheets: rows of gray, predicted and true pictures, for the eye."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

_COLUMNS = 8
_MANY, _MANY_COLUMNS = 24, 20  # from more than so many pictures on, so many columns


def save_sheet(path: Path, gray: Tensor, predicted: Tensor, true: Tensor) -> None:
    """Write a PNG of columns of pictures, in bands of three rows: gray, predicted, true.

    Args:
        path: the PNG to write.
        gray: (N, 3, H, W) sRGB in [0, 1], as are the other two.
        predicted: the same pictures, colored.
        true: the same pictures as they were.
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

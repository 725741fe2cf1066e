import numpy as np
import pytest
import torch
from PIL import Image

from trainer.sample_grid import save_sheet


def plain(count: int, *rgb: float) -> torch.Tensor:
    return torch.tensor(rgb).view(1, 3, 1, 1).expand(count, 3, 10, 10)


@pytest.mark.parametrize(
    ("count", "columns", "bands"),
    [(1, 8, 1), (8, 8, 1), (9, 8, 2), (24, 8, 3), (25, 20, 2), (40, 20, 2), (41, 20, 3)],
)
def test_sheet_has_three_rows_per_band_of_eight_or_twenty_pictures(tmp_path, count, columns, bands):
    path = tmp_path / "samples" / "sheet.png"
    save_sheet(path, plain(count, 0.5, 0.5, 0.5), plain(count, 1, 0, 0), plain(count, 0, 0, 1))
    sheet = np.asarray(Image.open(path))
    assert sheet.shape == (bands * 30, columns * 10, 3)
    for top in range(0, bands * 30, 30):
        assert [sheet[top + y, 5].tolist() for y in (5, 15, 25)] == [[128] * 3, [255, 0, 0], [0, 0, 255]]
    last = 10 * ((count - 1) % columns)
    assert sheet[-5, last + 5].tolist() == [0, 0, 255]
    assert not sheet[-30:, last + 10 :].any()


def test_sheet_keeps_order_and_clips_colors_outside_srgb(tmp_path):
    pictures = torch.cat([plain(1, 0, 0, 0), plain(1, 2, 1, -1)])
    save_sheet(tmp_path / "sheet.png", pictures, pictures, pictures)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet[5, 5].tolist() == [0, 0, 0]
    assert sheet[5, 15].tolist() == [255, 255, 0]

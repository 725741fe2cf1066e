import io

import numpy as np
import pytest
from PIL import Image

from colorize_cli.color.lab import srgb_to_lab
from colorize_cli.image import reader, webp
from tests.helpers.animations import animation
from tests.helpers.cli import invoke
from tests.helpers.pictures import gray

LIMIT = 1_000_000


def saved(**options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(gray()).convert(options.pop("mode", "RGB")).save(file, "WEBP", **options)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("lossless", [False, True])
def test_lossless_files_are_recognized(mode, lossless):
    exif = Image.Exif()
    exif[271] = "Maker"
    for data in (
        saved(mode=mode, lossless=lossless),
        saved(mode=mode, lossless=lossless, exif=exif, xmp=b"<x/>"),
    ):
        assert webp.is_lossless(io.BytesIO(data)) == lossless
        assert reader.read(data, LIMIT).lossless == lossless


@pytest.mark.parametrize("lossless", [False, True])
def test_lossless_animations_are_recognized(lossless):
    data = animation("WEBP", "RGBA", lossless=lossless)
    assert all(frame.lossless == lossless for frame in reader.read_pages(data, LIMIT))


def test_lossless_file_is_written_without_loss(models, tmp_path):
    (tmp_path / "a.webp").write_bytes(saved(lossless=True))
    options = ("--model", models.tinted, "--device", "cpu")
    assert invoke(tmp_path / "a.webp", tmp_path / "b.webp", *options).exit_code == 0
    assert invoke(tmp_path / "a.webp", tmp_path / "b.png", *options).exit_code == 0
    assert invoke(tmp_path / "a.webp", tmp_path / "c.webp", *options, "--quality", 80).exit_code == 0
    with Image.open(tmp_path / "b.webp") as image, Image.open(tmp_path / "b.png") as png:
        found = np.asarray(image)
        np.testing.assert_array_equal(found, np.asarray(png))
    off = srgb_to_lab(found / 255)[..., 0] - srgb_to_lab(np.dstack([gray()] * 3) / 255)[..., 0]
    assert np.abs(off).max() < 0.5
    assert not webp.is_lossless(io.BytesIO((tmp_path / "c.webp").read_bytes())), "a quality was asked for"

import io
import tracemalloc

import cv2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from colorize_cli.image import png_writer


def decoded(content: bytes) -> np.ndarray:
    found = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    return found[..., [2, 1, 0, 3][: found.shape[2]]]


def written(samples: np.ndarray, **saving) -> bytes:
    file = io.BytesIO()
    png_writer.write(file, samples[..., :3], samples[..., 3] if samples.shape[2] > 3 else None, saving)
    return file.getvalue()


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (700, 1), (37, 53), (400, 600)])
@pytest.mark.parametrize("channels", [3, 4])
def test_write_keeps_every_sample(shape, channels):
    samples = np.random.default_rng(0).integers(0, 65536, (*shape, channels), dtype=np.uint16)
    np.testing.assert_array_equal(decoded(written(samples)), samples)


def test_write_stores_metadata_that_pillow_reads():
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Title", "a title")
    exif = Image.Exif()
    exif[271] = "Maker"
    content = written(np.zeros((5, 7, 3), np.uint16), dpi=(300, 150), pnginfo=texts, exif=exif)
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        assert image.size == (7, 5)
        assert image.text["Title"] == "a title"
        assert image.getexif()[271] == "Maker"
        assert [round(side) for side in image.info["dpi"]] == [300, 150]


def test_write_compresses_a_smooth_picture():
    y, x = np.mgrid[:200, :300]
    samples = np.repeat((100 * x + 50 * y).astype(np.uint16)[..., None], 3, axis=2)
    assert len(written(samples)) < samples.nbytes / 20


def test_write_memory_is_independent_of_height(tmp_path):
    def peak(height: int) -> int:
        samples = np.random.default_rng(0).integers(0, 65536, (height, 500, 3), dtype=np.uint16)
        with (tmp_path / "a.png").open("wb") as file:
            tracemalloc.start()
            png_writer.write(file, samples, None, {})
            size = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        return size

    assert peak(4000) < 1.1 * peak(1000)

import io

import numpy as np
import pytest
from PIL import Image

from colorize_cli.color.ycbcr import BytePlanes
from colorize_cli.image import jpeg
from tests.colorize_cli.cli.test_run import invoke


def test_qualities_and_tables_are_libjpegs():
    for quality in (30, 75, 92, 100):
        file = io.BytesIO()
        Image.new("RGB", (16, 16)).save(file, "JPEG", quality=quality)
        luma, chroma = (tuple(Image.open(file).quantization[n]) for n in (0, 1))
        assert jpeg.tables(quality) == (luma, chroma)
        assert jpeg.quality_of(luma) == quality
    assert jpeg.quality_of((3,) * 64) is None


def colors(fewer: int, height: int = 61, width: int = 75) -> BytePlanes:
    """Shapes of 9 pixels, with 4:4:4 or 4:2:0 chroma."""
    random = np.random.default_rng(0)

    def plane(height: int, width: int) -> np.ndarray:
        small = random.integers(60, 200, (-(-height // 9), -(-width // 9)), dtype=np.uint8)
        return np.ascontiguousarray(small.repeat(9, 0).repeat(9, 1)[:height, :width])

    chroma = [plane(-(-height // fewer), -(-width // fewer)) for _ in range(2)]
    return BytePlanes(plane(height, width), *chroma)


def written(content: BytePlanes | np.ndarray, quality: int | jpeg.Table, **saving):
    file = io.BytesIO()
    jpeg.write(file, content, quality, saving)
    return Image.open(file)


@pytest.mark.parametrize(("quality", "used"), [(75, 75), (92, 92), (93, 96), (95, 96), (96, 96), (100, 100)])
def test_pixels_and_tables_are_those_of_pillow(quality, used):
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8).repeat(9, 0).repeat(9, 1)
    theirs = io.BytesIO()
    Image.fromarray(rgb).save(theirs, "JPEG", quality=used, subsampling="4:4:4")
    one, other = written(rgb, quality), Image.open(theirs)
    off = np.abs(np.asarray(one).astype(int) - np.asarray(other))
    assert off.mean() < (1.5 if used < 96 else 1e-9)  # below 96 the fast transform is used
    assert one.quantization == other.quantization
    assert one.layer == other.layer


@pytest.mark.parametrize(("fewer", "sampling"), [(1, (1, 1)), (2, (2, 2))])
def test_planes_are_stored_as_they_are(fewer, sampling):
    planes = colors(fewer)
    image = written(planes, 100)
    assert image.layer[0][1:3] == sampling
    assert image.layer[1][1:3] == image.layer[2][1:3] == (1, 1)
    image.draft("YCbCr", None)
    luma, blue, red = np.moveaxis(np.asarray(image), -1, 0)
    assert np.abs(luma.astype(int) - planes.luma).max() <= 1
    inside = np.s_[4::9, 4::9]  # centers of shapes, where chroma upsampling uses no neighbors
    for found, plane in ((blue, planes.blue), (red, planes.red)):
        large = plane.repeat(fewer, 0).repeat(fewer, 1)[:61, :75]
        assert np.abs(found[inside].astype(int) - large[inside]).max() <= (1 if fewer == 1 else 40)
        assert np.abs(found.astype(int) - large).mean() < (1 if fewer == 1 else 3)


@pytest.mark.parametrize("fewer", [1, 2])
@pytest.mark.parametrize("size", [(61, 75), (60, 75), (61, 74), (1, 1), (2, 1), (1, 17), (64, 80)])
def test_both_encoders_store_the_same(fewer, size, monkeypatch):
    """libjpeg-turbo with planes at a quality, and Pillow with the luminance table of that quality."""
    monkeypatch.setattr(jpeg, "_CHROMA_BESIDE_TABLE", 97)
    planes = colors(fewer, *size)
    one, other = written(planes, 97), written(planes, jpeg.tables(97)[0])
    np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    assert one.quantization == other.quantization
    assert one.size == other.size == size[::-1]


@pytest.mark.parametrize("size", [(1001, 1201), (1000, 1201), (1001, 1200)])
def test_what_lies_in_memory_beyond_the_planes_is_not_stored(size):
    """The encoder reads whole pairs of rows and columns."""
    files = []
    for beyond in (0, 255):
        block = np.full((size[0] + 2, size[1] + 3), beyond, np.uint8)
        block[: size[0], : size[1]] = 128
        half = np.full((-(-size[0] // 2), -(-size[1] // 2)), 140, np.uint8)
        file = io.BytesIO()
        jpeg.write(file, BytePlanes(block[: size[0], : size[1]], half, half), 90, {})
        files.append(file.getvalue())
    assert files[0] == files[1]
    assert np.ptp(np.asarray(Image.open(io.BytesIO(files[0]))).astype(int), axis=(0, 1)).max() == 0


@pytest.mark.parametrize("quality", [92, (3,) * 64])
@pytest.mark.parametrize("fewer", [1, 2])
def test_what_describes_the_picture_is_written_once(quality, fewer):
    image = written(colors(fewer), quality, comment=b"a comment", dpi=(300, 300))
    assert (image.info["comment"], image.info["dpi"]) == (b"a comment", (300, 300))
    assert [marker for marker, _ in image.applist].count("APP0") == 1


@pytest.mark.parametrize(
    ("saving", "luma", "chroma"),
    [
        ({"quality": 87}, *jpeg.tables(87)),
        ({"quality": 40}, jpeg.tables(40)[0], jpeg.tables(75)[1]),  # too coarse for chroma
        ({"quality": 94}, *jpeg.tables(96)),
        ({"qtables": [[3] * 64]}, (3,) * 64, jpeg.tables(95)[1]),  # another program's table
    ],
)
def test_an_output_has_its_inputs_fineness(models, gray_photo, tmp_path, saving, luma, chroma):
    Image.fromarray(gray_photo).save(tmp_path / "a.jpg", **saving)
    result = invoke(tmp_path / "a.jpg", tmp_path / "b.jpg", "--model", models.tinted, "--device", "cpu")
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "b.jpg") as output:
        assert tuple(output.quantization[0]) == luma
        assert tuple(output.quantization[1]) == chroma

import io

import numpy as np
import pytest
from PIL import Image

from colorize_cli.media import jpeg
from tests.colorize_cli.test_cli import invoke


def test_qualities_and_tables_are_libjpegs():
    for quality in (30, 75, 92, 100):
        file = io.BytesIO()
        Image.new("RGB", (16, 16)).save(file, "JPEG", quality=quality)
        luma, chroma = (tuple(Image.open(file).quantization[n]) for n in (0, 1))
        assert jpeg.tables(quality) == (luma, chroma)
        assert jpeg.quality_of(luma) == quality
    assert jpeg.quality_of((3,) * 64) is None


@pytest.mark.parametrize(("luma", "chroma"), [(60, 95), (95, 95), (97, 80)])
def test_pixels_and_tables_are_those_of_pillow(luma, chroma):
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8).repeat(9, 0).repeat(9, 1)
    ours, theirs = io.BytesIO(), io.BytesIO()
    jpeg.write(ours, rgb, luma, chroma, {"comment": b"a comment", "dpi": (300, 300)})
    tables = [list(jpeg.tables(luma)[0]), list(jpeg.tables(chroma)[1])]
    Image.fromarray(rgb).save(theirs, "JPEG", qtables=tables, subsampling="4:4:4")
    one, other = Image.open(ours), Image.open(theirs)
    np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    assert one.quantization == other.quantization
    assert one.layer == other.layer
    assert (one.info["comment"], one.info["dpi"]) == (b"a comment", (300, 300))
    assert [marker for marker, _ in one.applist].count("APP0") == 1


@pytest.mark.parametrize(
    ("saving", "luma"),
    [
        ({"quality": 87}, jpeg.tables(87)[0]),
        ({"qtables": [[3] * 64]}, (3,) * 64),  # of some other program
    ],
)
def test_an_output_has_its_inputs_fineness_of_lightness(models, grey_photo, tmp_path, saving, luma):
    Image.fromarray(grey_photo).save(tmp_path / "a.jpg", **saving)
    result = invoke(tmp_path / "a.jpg", tmp_path / "b.jpg", "--model", models.tinted, "--device", "cpu")
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "b.jpg") as output:
        assert tuple(output.quantization[0]) == luma
        assert tuple(output.quantization[1]) == jpeg.tables(95)[1]
        assert output.layer[0][1:3] == (1, 1)

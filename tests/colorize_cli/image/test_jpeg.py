import io
import shutil
import subprocess

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from skimage import color

from colorize_cli.color.ycbcr import BytePlanes
from colorize_cli.core.errors import ReadError
from colorize_cli.image import jpeg, reader
from tests.helpers.cli import finish, invoke


def test_quality_tables_equal_those_of_libjpeg():
    for quality in (30, 75, 92, 100):
        file = io.BytesIO()
        Image.new("RGB", (16, 16)).save(file, "JPEG", quality=quality)
        luma, chroma = (tuple(Image.open(file).quantization[n]) for n in (0, 1))
        assert jpeg.tables(quality) == (luma, chroma)
        assert jpeg.quality_of(luma) == quality
    assert jpeg.quality_of((3,) * 64) is None


def colors(fewer: int, height: int = 61, width: int = 75) -> BytePlanes:
    """Return shapes of 9 pixels, with 4:4:4 or 4:2:0 chroma."""
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
def test_write_equals_pillow(quality, used):
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8).repeat(9, 0).repeat(9, 1)
    theirs = io.BytesIO()
    Image.fromarray(rgb).save(theirs, "JPEG", quality=used, subsampling="4:4:4")
    one, other = written(rgb, quality), Image.open(theirs)
    off = np.abs(np.asarray(one).astype(int) - np.asarray(other))
    assert off.mean() < (1.5 if used < 96 else 1e-9)  # below 96 the fast transform is used
    assert one.quantization == other.quantization
    assert one.layer == other.layer


@pytest.mark.parametrize(("fewer", "sampling"), [(1, (1, 1)), (2, (2, 2))])
def test_write_stores_planes_unchanged(fewer, sampling):
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
def test_write_by_both_encoders_is_equal(fewer, size, monkeypatch):
    """libjpeg-turbo with planes at a quality, and Pillow with the luminance table of that quality."""
    monkeypatch.setattr(jpeg, "_CHROMA_BESIDE_TABLE", 97)
    planes = colors(fewer, *size)
    one, other = written(planes, 97), written(planes, jpeg.tables(97)[0])
    np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    assert one.quantization == other.quantization
    assert one.size == other.size == size[::-1]


@pytest.mark.parametrize("size", [(1001, 1201), (1000, 1201), (1001, 1200)])
def test_write_ignores_memory_beyond_the_planes(size):
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
def test_write_stores_metadata_once(quality, fewer):
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
def test_output_has_the_quality_of_its_input(models, gray_photo, tmp_path, saving, luma, chroma):
    Image.fromarray(gray_photo).save(tmp_path / "a.jpg", **saving)
    result = invoke(tmp_path / "a.jpg", tmp_path / "b.jpg", "--model", models.tinted, "--device", "cpu")
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "b.jpg") as output:
        assert tuple(output.quantization[0]) == luma
        assert tuple(output.quantization[1]) == chroma


LIMIT = 2_000_000


def scene(height: int = 400, width: int = 600) -> np.ndarray:
    random = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    waves = 128 + 60 * np.sin(x / 17) + 40 * np.cos(y / 23)
    return np.clip(waves + random.normal(0, 4, (height, width)), 0, 255).astype(np.uint8)


def encoded(mode: str = "L", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(scene()).convert(mode).save(file, "JPEG", quality=90, **options)
    return file.getvalue()


def with_zeros(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(4096) + data[middle + 4096 :]


def lightness_of(data: bytes) -> np.ndarray:
    return reader.read(data, LIMIT).lightness.rows(0, 400)


def by_djpeg(data: bytes) -> tuple[np.ndarray, int]:
    """Return the picture as decoded by libjpeg's program, and its exit status."""
    djpeg = shutil.which("djpeg")
    if djpeg is None:
        pytest.skip("djpeg is not installed")
    done = subprocess.run([djpeg, "-pnm"], input=data, capture_output=True, check=False)
    return np.asarray(Image.open(io.BytesIO(done.stdout)).convert("RGB")), done.returncode


KINDS = {
    "gray": ("L", {}),
    "color": ("RGB", {}),
    "subsampled": ("RGB", {"subsampling": "4:2:0"}),
    "progressive": ("L", {"progressive": True}),
    "progressive color": ("RGB", {"progressive": True}),
    "restarts": ("L", {"restart_marker_rows": 1}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_read_equals_djpeg(kind):
    mode, options = KINDS[kind]
    data = encoded(mode, **options)
    wanted, status = by_djpeg(data)
    assert status == 0
    frame = reader.read(data, LIMIT)
    assert frame.damage is None
    np.testing.assert_allclose(lightness_of(data), color.rgb2lab(wanted)[..., 0], atol=0.003)


def test_read_of_cmyk_equals_pillow():
    data = encoded("CMYK")
    wanted = Image.open(io.BytesIO(data)).convert("RGB")
    np.testing.assert_allclose(lightness_of(data), color.rgb2lab(np.asarray(wanted))[..., 0], atol=0.3)


@pytest.mark.parametrize("kind", KINDS)
def test_read_of_damaged_data_reports_the_damage(kind):
    mode, options = KINDS[kind]
    data = with_zeros(encoded(mode, **options))
    assert by_djpeg(data)[1] == 2
    damage = reader.read(data, LIMIT).damage
    assert damage is not None
    assert "\n" not in damage


def test_damaged_picture_is_written_and_the_run_fails(models, tmp_path):
    (tmp_path / "in").mkdir()
    damaged = with_zeros(encoded())
    (tmp_path / "in" / "a.jpg").write_bytes(damaged)
    (tmp_path / "in" / "b.jpg").write_bytes(encoded())
    command = (tmp_path / "in", tmp_path / "out", "--model", models.tinted, "--device", "cpu", "-q")
    for _ in range(2):  # it is tried again, since the file may have been replaced
        code, out, err = finish(*command)
        assert (code, out) == (1, "")
        (line,) = err.splitlines()
        assert line.startswith(f"{tmp_path}/in/a.jpg: damaged: Corrupt JPEG data: ")
        assert line.endswith("; the output contains only what could be decoded")
        for name, data in (("a.jpg", damaged), ("b.jpg", encoded())):
            found = color.rgb2lab(np.asarray(Image.open(tmp_path / "out" / name)))[..., 0]
            assert np.abs(found - color.rgb2lab(by_djpeg(data)[0])[..., 0]).mean() < 1
    (tmp_path / "in" / "a.jpg").write_bytes(encoded())
    assert finish(*command) == (0, "", "")


@pytest.mark.parametrize("kind", KINDS)
def test_read_without_the_end_marker_is_complete(kind):
    mode, options = KINDS[kind]
    data = encoded(mode, **options)
    frame = reader.read(data[:-2], LIMIT)
    assert frame.damage is None
    np.testing.assert_array_equal(lightness_of(data[:-2]), lightness_of(data))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("missing", [40, 1000, 20_000])
def test_read_without_some_rows_is_an_error(kind, missing):
    mode, options = KINDS[kind]
    with pytest.raises(ReadError, match="truncated"):
        reader.read(encoded(mode, **options)[:-missing], LIMIT)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_read_without_progressive_scans_is_an_error(mode):
    data = encoded(mode, progressive=True)
    scans = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xda"]
    for at in scans[1:]:
        with pytest.raises(ReadError, match="truncated"):
            reader.read(data[:at], LIMIT)


def test_read_with_bytes_after_the_end_is_complete():
    data = encoded()
    assert reader.read(data + bytes(5000), LIMIT).damage is None
    np.testing.assert_array_equal(lightness_of(data + encoded()), lightness_of(data))


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_read_of_12_bits_is_deep(models, tmp_path, mode):
    y, x = np.mgrid[:400, :600]
    codes = np.rint(4095 * (0.05 + 0.9 * x / 600 * (0.7 + 0.3 * y / 400))).astype(np.uint16)
    stored = codes if mode == "L" else np.dstack([codes, codes, codes // 2])
    data = imagecodecs.jpeg8_encode(
        stored, level=98, bitspersample=12, subsampling="444" if mode == "RGB" else None
    )
    frame = reader.read(data, LIMIT)
    assert frame.deep
    rgb = stored if mode == "RGB" else np.dstack([stored] * 3)
    off = np.abs(lightness_of(data) - color.rgb2lab(rgb / 4095)[..., 0])
    assert off.mean() < (0.03 if mode == "L" else 0.1)
    (tmp_path / "a.jpg").write_bytes(data)
    for name in ("b.jpg", "b.png"):
        options = ("--model", models.tinted, "--device", "cpu", "--if-colored", "recolor")
        assert invoke(tmp_path / "a.jpg", tmp_path / name, *options).exit_code == 0
        with Image.open(tmp_path / name) as image:
            assert image.size == (600, 400)

"""TIFF and BigTIFF of every layout and depth, made by tifffile. scikit-image gives the expected lightness."""

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage import color

from colorize_cli.color.lab import srgb_to_lab
from colorize_cli.compose import compose16
from colorize_cli.core.errors import ReadError
from colorize_cli.image import reader, writer
from tests.helpers.cli import invoke
from tests.helpers.tiff_files import SEPARATE, written

LIMIT = 1_000_000
SHAPE = (90, 120)
STEP = 100 / 65535  # the resolution of stored lightness, in L*


def gray() -> np.ndarray:
    """Return floats in [0, 1], with structure along both axes and no symmetry."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]] / np.array(SHAPE)[:, None, None]
    return np.clip(0.02 + 0.85 * x + 0.1 * np.sin(9 * y), 0, 1)


def toned() -> np.ndarray:
    """Return a toned print, (H, W, 3) floats."""
    return np.stack([gray() ** 0.9, gray(), gray() ** 1.15], -1)


def lightness_of(samples: np.ndarray) -> np.ndarray:
    """Return L* of sRGB in [0, 1], gray (H, W) or color (H, W, 3)."""
    rgb = np.repeat(samples[..., None], 3, -1) if samples.ndim == 2 else samples
    return color.rgb2lab(rgb.astype(np.float64))[..., 0]


def codes(samples: np.ndarray, bits: int = 16) -> np.ndarray:
    return np.rint(samples * (2**bits - 1)).astype(np.uint16 if bits > 8 else np.uint8)


def read(data: bytes) -> np.ndarray:
    frame = reader.read(data, LIMIT)
    return frame.lightness.rows(0, frame.lightness.shape[0])


PACKINGS = [{}, {"compression": "deflate", "predictor": True}, {"compression": "lzw"}]


@pytest.mark.parametrize("options", [{}, {"rowsperstrip": 7}, {"tile": (32, 48)}], ids=str)
@pytest.mark.parametrize(
    "packing", [{}, {"compression": "deflate", "predictor": True}, {"compression": "lzw"}]
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("big", [{}, {"bigtiff": True}, {"bigtiff": True, "byteorder": ">"}], ids=str)
def test_rgb_of_every_layout_is_read(dtype, planar, options, packing, big):
    samples = toned().astype(dtype) if dtype is np.float32 else codes(toned(), 8 * np.dtype(dtype).itemsize)
    wanted = lightness_of(samples / (1 if dtype is np.float32 else np.iinfo(dtype).max))
    array, layout = (np.moveaxis(samples, -1, 0), SEPARATE) if planar else (samples, {"photometric": "rgb"})
    frame = reader.read(written(array, **layout, **options, **packing, **big), LIMIT)
    assert frame.deep == (dtype is not np.uint8)
    np.testing.assert_allclose(frame.lightness.rows(0, SHAPE[0]), wanted, atol=2 * STEP)


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 8, 10, 12, 14, 16])
@pytest.mark.parametrize("polarity", ["minisblack", "miniswhite"])
def test_gray_of_every_depth_is_read(bits, polarity):
    stored = codes(gray(), bits)
    wanted = lightness_of(stored / (2**bits - 1))
    if polarity == "miniswhite":
        stored = (2**bits - 1 - stored).astype(stored.dtype)
    if bits == 1:
        stored = stored.astype(bool)
    data = written(stored, photometric=polarity, bitspersample=bits, bigtiff=bits in (1, 2, 4, 8))
    frame = reader.read(data, LIMIT)
    assert frame.deep == (bits not in (1, 2, 4, 8))
    np.testing.assert_allclose(frame.lightness.rows(0, SHAPE[0]), wanted, atol=2 * STEP)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 3])
def test_floats_of_every_size_are_read(dtype, channels):
    samples = (gray() if channels == 1 else toned()).astype(dtype)
    found = read(written(samples, photometric="minisblack" if channels == 1 else "rgb"))
    np.testing.assert_allclose(found, lightness_of(samples), atol=2 * STEP)


def test_sixteen_bits_keep_every_level():
    stored = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    for data in (written(stored), written(np.stack([stored] * 3), **SEPARATE)):
        np.testing.assert_array_equal(reader.read(data, LIMIT).lightness.codes, stored)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha", "unspecified"])
@pytest.mark.parametrize("channels", [1, 3])
def test_extra_samples_are_interpreted_by_kind(dtype, kind, channels):
    """Transparency is kept and premultiplied colors are divided by it; an infrared channel is dropped."""
    white = np.iinfo(dtype).max
    colors = gray()[..., None] if channels == 1 else toned()
    alpha = np.rint(np.linspace(0.2, 1, SHAPE[0] * SHAPE[1]).reshape(SHAPE) * white)
    factor = (alpha / white)[..., None] if kind == "assocalpha" else 1
    stored = np.dstack([np.rint(colors * white * factor), alpha]).astype(dtype)
    photometric = "minisblack" if channels == 1 else "rgb"
    frame = reader.read(written(stored, photometric=photometric, extrasamples=[kind], bigtiff=True), LIMIT)
    if kind == "unspecified":
        assert frame.alpha is None
    else:
        np.testing.assert_array_equal(frame.alpha, alpha)
    off = np.abs(frame.lightness.rows(0, SHAPE[0]) - lightness_of(colors.squeeze()))
    assert off.max() < (0.01 if dtype is np.uint16 else 3)


def test_gray_16_bit_scan_with_transparency_keeps_both(tmp_path):
    stored = np.dstack([codes(gray()), codes(gray()[::-1])])
    data = written(stored, photometric="minisblack", extrasamples=["unassalpha"], planarconfig="contig")
    frame = reader.read(data, LIMIT)
    ab = np.stack([np.full((3, 5), 6), np.full((3, 5), 9)]).astype(np.float32)
    writer.write(tmp_path / "b.tif", [(frame, compose16(frame.lightness, ab))])
    found = tifffile.imread(tmp_path / "b.tif")
    np.testing.assert_array_equal(found[..., 3], stored[..., 1])
    off = np.abs(lightness_of(found[..., :3] / 65535) - lightness_of(stored[..., 0] / 65535))
    assert off.max() < 0.01


@pytest.mark.parametrize("bits", [8, 16])
def test_cie_lab_is_read(bits):
    scale = 1 if bits == 8 else 256
    lightness = codes(gray(), bits)
    ab = np.stack([np.full(SHAPE, -7 * scale), np.full(SHAPE, 12 * scale)], -1)
    unsigned = np.uint8 if bits == 8 else np.uint16
    stored = np.dstack([lightness, ab.astype(np.int16).astype(unsigned)])
    frame = reader.read(written(stored, photometric="cielab"), LIMIT)
    np.testing.assert_allclose(
        frame.lightness.rows(0, SHAPE[0]), lightness * (100 / (2**bits - 1)), atol=1e-4
    )
    assert not frame.is_color, "a single tone is gray"
    ((frame, rgb),) = reader.original_pages(written(stored, photometric="cielab"), LIMIT)
    lab = color.rgb2lab(rgb)
    inside = (lightness > 0.3 * (2**bits - 1)) & (lightness < 0.8 * (2**bits - 1))
    np.testing.assert_allclose(lab[inside][:, 1:].mean(0), (-7, 12), atol=0.5)


@pytest.mark.parametrize("bits", [8, 16])
def test_cmyk_is_read(bits):
    inks = np.dstack([toned(), gray() * 0.5])
    stored = codes(inks, bits)
    light = 1 - stored / (2**bits - 1)
    found = read(written(stored, photometric="separated", bigtiff=True))
    np.testing.assert_allclose(found, lightness_of(light[..., :3] * light[..., 3:]), atol=2 * STEP)


def test_palette_in_a_bigtiff_is_read():
    stored = codes(gray(), 8)
    ramp = np.linspace(65535, 0, 256).astype(np.uint16)
    data = written(stored, photometric="palette", colormap=np.stack([ramp] * 3), bigtiff=True)
    np.testing.assert_allclose(read(data), lightness_of((ramp[stored] >> 8) / 255), atol=2 * STEP)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_a_planar_picture_is_applied(orientation):
    stored = codes(toned())
    tag = [(274, 3, 1, orientation, True)]
    data = written(np.moveaxis(stored, -1, 0), extratags=tag, metadata=None, **SEPARATE)
    expected = {
        1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud,
        5: lambda a: a.T, 6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a, 2).T, 8: np.rot90,
    }[orientation](lightness_of(stored / 65535))  # fmt: skip
    np.testing.assert_allclose(read(data), expected, atol=2 * STEP)


def adobe_rgb(gamma: float = 563 / 256) -> bytes:
    """Make an ICC profile of Adobe RGB (1998), with the numbers of its specification."""
    import imagecodecs

    primaries = (0.64, 0.33, 1, 0.21, 0.71, 1, 0.15, 0.06, 1)
    return imagecodecs.cms_profile("rgb", whitepoint=(0.3127, 0.329, 1), primaries=primaries, gamma=gamma)


def test_adobe_rgb_scan_keeps_its_16_bits():
    stored = codes(toned())
    # Luminances of the primaries, Adobe RGB (1998), section 4.3.5.3.
    luminance = (stored / 65535) ** (563 / 256) @ (0.29734, 0.62736, 0.07529)
    wanted = np.where(luminance > (6 / 29) ** 3, 116 * np.cbrt(luminance) - 16, luminance * (29 / 3) ** 3)
    for array, layout in ((stored, {"photometric": "rgb"}), (np.moveaxis(stored, -1, 0), SEPARATE)):
        frame = reader.read(written(array, iccprofile=adobe_rgb(), **layout), LIMIT)
        found = frame.lightness.rows(0, SHAPE[0])
        np.testing.assert_allclose(found, wanted, atol=0.004)
        levels = len(np.unique(np.rint(wanted / STEP)))
        assert len(np.unique(frame.lightness.codes)) > 0.95 * levels


def test_linear_gray_scan_keeps_its_16_bits():
    import imagecodecs

    stored = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    profile = imagecodecs.cms_profile("gray", whitepoint=(0.3127, 0.329, 1), gamma=1.0)
    found = read(written(stored, photometric="minisblack", iccprofile=profile))
    light = stored / 65535
    wanted = np.where(light > (6 / 29) ** 3, 116 * np.cbrt(light) - 16, light * (29 / 3) ** 3)
    np.testing.assert_allclose(found, wanted, atol=2e-3)
    assert (np.diff(found.ravel()) > 0).all(), "levels stay distinct"


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("suffix", [".tif", ".jpg", ".png"])
def test_bigtiff_keeps_its_tags(models, tmp_path, byteorder, suffix):
    tags = [(271, 2, 0, "Maker", True), (315, 2, 0, "Someone", True), (700, 1, 5, b"<x/>\n", True)]
    options = {"extratags": tags, "metadata": None, "resolution": (300, 150), "resolutionunit": 2}
    data = written(codes(gray()), bigtiff=True, byteorder=byteorder, **options)
    (tmp_path / "a.tif").write_bytes(data)
    result = invoke(tmp_path / "a.tif", tmp_path / f"b{suffix}", "--model", models.tinted, "--device", "cpu")
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / f"b{suffix}") as image:
        image.load()
        assert image.getexif()[271] == "Maker"
        assert image.getexif()[315] == "Someone"
        assert [round(float(side)) for side in image.info["dpi"]] == [300, 150]


def test_pages_of_several_layouts_are_read():
    file = io.BytesIO()
    pages = [codes(gray(), 8), codes(toned()), codes(gray()).astype(np.uint16)]
    with tifffile.TiffWriter(file, bigtiff=True) as tiff:
        tiff.write(pages[0], photometric="minisblack")
        tiff.write(np.moveaxis(pages[1], -1, 0), **SEPARATE)
        tiff.write(pages[2], photometric="minisblack", bitspersample=16, compression="lzw")
    frames = list(reader.read_pages(file.getvalue(), LIMIT))
    assert [frame.deep for frame in frames] == [False, True, True]
    for frame, page in zip(frames, pages, strict=True):
        wanted = lightness_of(page / np.iinfo(page.dtype).max)
        np.testing.assert_allclose(frame.lightness.rows(0, SHAPE[0]), wanted, atol=2 * STEP)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (written(codes(gray()).view(np.int16)), "signed 16-bit integer samples are not supported"),
        (written(codes(gray()).astype(np.uint32)), "32-bit integer samples are not supported: their white"),
        (written(gray() * 300), "floats from 0 to 288"),
        (
            written((gray() + 1j).astype(np.complex64)),
            "samples of 64 bits and format 6 are not supported",
        ),
    ],
)
def test_unsupported_samples_are_named(data, reason):
    with pytest.raises(ReadError, match=reason):
        reader.read(data, LIMIT)


@pytest.mark.parametrize(
    "options", [{}, {"compression": "deflate"}, {"compression": "lzw", "tile": (32, 48)}], ids=str
)
@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_truncated_file_is_an_error(options, kept):
    data = written(np.moveaxis(codes(toned()), -1, 0), **SEPARATE, **options)
    with pytest.raises(ReadError, match="damaged"):
        reader.read(data[: int(len(data) * kept)], LIMIT)


def test_output_of_a_profiled_picture_is_srgb(tmp_path):
    """The output is 16-bit sRGB with the same lightness."""
    stored = codes(toned())
    data = written(stored, photometric="rgb", iccprofile=adobe_rgb())
    frame = reader.read(data, LIMIT)
    ab = np.stack([np.full((3, 5), 6), np.full((3, 5), 9)]).astype(np.float32)
    writer.write(tmp_path / "b.tif", [(frame, compose16(frame.lightness, ab))])
    found = srgb_to_lab(tifffile.imread(tmp_path / "b.tif") / np.float32(65535))
    assert np.abs(found[..., 0] - frame.lightness.rows(0, SHAPE[0])).max() < 0.01


def test_peak_memory_of_floats_is_a_few_bytes_per_pixel(tmp_path):
    """A picture in one strip is read in stripes. 64-bit RGB has 24 bytes per pixel, its codes have 6."""
    import tracemalloc

    path = Path(tmp_path / "a.tif")
    tifffile.imwrite(path, np.tile(toned(), (20, 10, 1)), photometric="rgb")
    reader.read(path, 10_000_000)
    tracemalloc.start()
    frame = reader.read(path, 10_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * frame.pixels + (64 << 20)

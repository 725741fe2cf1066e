import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import colorize_cli
from colorize_cli import Colorizer
from colorize_cli.color import lab, lightness
from colorize_cli.core.errors import ReadError


@pytest.fixture(scope="module")
def tinted(models) -> Colorizer:
    return Colorizer(models.tinted, device="cpu")


def lightness_of(rgb: np.ndarray) -> np.ndarray:
    return lab.srgb_to_lab(rgb[..., :3] / 255)[..., 0]


def assert_lightness_kept(before: np.ndarray, after: np.ndarray) -> None:
    difference = np.abs(before - after)
    assert difference.mean() <= 0.3
    assert difference.max() <= 1.5


def test_import_of_the_package_loads_nothing_heavy():
    code = (
        "import sys, colorize_cli; colorize_cli.__version__;"
        "names = ('torch', 'onnxruntime', 'cv2', 'numpy', 'trainer', 'ray', 'fsspec');"
        "print([name for name in names if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_import_of_the_command_loads_no_torch_or_trainer():
    code = (
        "import sys, colorize_cli.cli, colorize_cli.api;"
        "names = ('torch', 'onnxruntime', 'trainer', 'ray', 'fsspec', 'colorize_cli.engine.transfer',"
        "'colorize_cli.storage.remote');"
        "print([name for name in names if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_loads_no_heavy_modules():
    code = (
        "import sys, click; from colorize_cli.cli.run import command;"
        "command(['--help'], standalone_mode=False);"
        "names = ('torch', 'onnxruntime', 'cv2', 'PIL', 'av', 'ray', 'fsspec', 's3fs');"
        "print([name for name in names if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage: " in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_import_of_the_engine_does_not_load_ray():
    code = "import sys, colorize_cli.engine; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_package_has_no_unknown_attribute():
    with pytest.raises(AttributeError, match="colour"):
        _ = colorize_cli.colour


def test_colorize_of_a_gray_array_keeps_lightness(tinted, gray_photo):
    out = tinted.colorize(gray_photo)
    assert (out.dtype, out.shape) == (np.uint8, (120, 160, 3))
    assert_lightness_kept(lightness.GRAY8[gray_photo], lightness_of(out))
    assert np.ptp(out.astype(int), axis=-1).mean() > 5


def test_colorize_of_a_color_array_keeps_lightness(tinted):
    rgb = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    assert_lightness_kept(lightness_of(rgb), lightness_of(tinted.colorize(rgb)))


def test_colorize_of_an_array_with_alpha_keeps_alpha(tinted, gray_photo):
    rgba = np.dstack([gray_photo] * 4)
    out = tinted.colorize(rgba)
    np.testing.assert_array_equal(out[..., 3], gray_photo)
    np.testing.assert_array_equal(out[..., :3], tinted.colorize(gray_photo))


def test_colorize_of_pillow_images_returns_pillow_images(tinted, gray_photo):
    expected = tinted.colorize(gray_photo)
    image = Image.fromarray(gray_photo)
    out = tinted.colorize(image)
    assert isinstance(out, Image.Image)
    assert out.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(out), expected)
    image.putalpha(9)
    assert tinted.colorize(image).mode == "RGBA"


def test_colorize_does_not_modify_its_input(tinted, gray_photo):
    before = gray_photo.copy()
    tinted.colorize(gray_photo)
    np.testing.assert_array_equal(gray_photo, before)


def test_colorize_with_a_gray_model_returns_the_input(models, gray_photo):
    out = Colorizer(models.gray, device="cpu").colorize(gray_photo)
    np.testing.assert_array_equal(out, np.dstack([gray_photo] * 3))


def test_colorizer_strength_reduces_chroma(models, gray_photo):
    half = Colorizer(models.tinted, device="cpu", strength=0.5).colorize(gray_photo)
    full = Colorizer(models.tinted, device="cpu", size=32).colorize(gray_photo)
    assert np.ptp(half.astype(int), axis=-1).mean() < np.ptp(full.astype(int), axis=-1).mean()


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 3)])
def test_colorize_of_tiny_pictures_keeps_their_shape(tinted, shape):
    assert tinted.colorize(np.full(shape, 77, np.uint8)).shape == (*shape, 3)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4)),
        np.zeros(4, np.uint8),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
    ],
)
def test_colorize_of_other_arrays_is_refused(tinted, array):
    with pytest.raises(ValueError, match="not uint8"):
        tinted.colorize(array)


def test_colorize_without_pixels_is_refused(tinted):
    with pytest.raises(ReadError, match="no pixels"):
        tinted.colorize(np.zeros((0, 5), np.uint8))


def test_bundled_model_colors_a_photograph(bundled_model):
    from skimage import data

    gray = np.asarray(Image.fromarray(data.astronaut()).convert("L"))
    out = Colorizer(bundled_model, device="cpu").colorize(gray)
    assert_lightness_kept(lightness.GRAY8[gray], lightness_of(out))
    chroma = np.hypot(*np.moveaxis(lab.srgb_to_lab(out / 255)[..., 1:], -1, 0))
    assert chroma.mean() > 5


def test_bundled_model_works_at_other_sizes_and_shapes(bundled_model, gray_photo):
    network = Colorizer(bundled_model, device="cpu", size=96)
    for crop in (gray_photo, gray_photo.T, gray_photo[:20], gray_photo[:, :9]):
        assert_lightness_kept(lightness.GRAY8[crop], lightness_of(network.colorize(crop)))


def test_bundled_model_has_complete_info(bundled_model):
    card = Colorizer(bundled_model, device="cpu").model.info
    assert card.name
    assert card.license
    assert card.trained_on
    assert bundled_model.stat().st_size <= 25_000_000

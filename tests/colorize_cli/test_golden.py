"""Pixels do not change: mean colors of parts of outputs are compared with recorded ones.

`python -m tests.colorize_cli.test_golden` records them. Do so only after an intended change.

The model is a stand-in whose chroma is a simple function of lightness, so the test covers reading, small
copies, upsampling, composition and writing. The tolerance is one level of 255 for the mean of a part, because
float arithmetic differs slightly between processors and versions of libraries.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from colorize_cli.color import lab, lightness
from tests.helpers.cli import invoke
from tests.helpers.models import write_model

NOTES = Path(__file__).with_name("golden.json")
PARTS = 4
TOLERANCE = 1.0


def scene(height: int, width: int) -> np.ndarray:
    """Return levels, (H, W) uint8: smooth shading, hard edges, black and white, and fine stripes."""
    y, x = np.mgrid[0:height, 0:width] / np.array([height, width])[:, None, None]
    levels = 120 + 90 * np.sin(5 * x + 2 * y) * np.cos(4 * y)
    levels += 60 * ((x - 0.3) ** 2 + (y - 0.6) ** 2 < 0.04) - 80 * ((x > 0.6) & (y < 0.4))
    levels += 8 * np.sin(x * width * 1.5)
    return np.clip(levels, 0, 255).astype(np.uint8)


def make(folder: Path) -> list[Path]:
    """Make gray JPEG and PNG files, small and large, a toned JPEG, and a 16-bit PNG."""
    small, large = scene(211, 300), scene(1201, 1603)
    toned = np.dstack([np.clip(small.astype(int) + offset, 0, 255) for offset in (12, 0, -18)])
    pictures = {
        "grey.jpg": Image.fromarray(small),
        "grey.png": Image.fromarray(small),
        "large.jpg": Image.fromarray(large),
        "large.png": Image.fromarray(large),
        "toned.jpg": Image.fromarray(toned.astype(np.uint8)),
        "deep.png": Image.fromarray(small.astype(np.uint16) * 257),
    }
    folder.mkdir(parents=True)
    for name, image in pictures.items():
        image.save(folder / name, quality=95)
    return [folder / name for name in pictures]


def parts(path: Path) -> list[list[float]]:
    """Return the mean red, green and blue levels of 4 x 4 parts of a picture."""
    with Image.open(path) as image:
        rgb = np.asarray(image.convert("RGB"), float)
    rows = np.array_split(rgb, PARTS, axis=0)
    means = [part.mean(axis=(0, 1)) for row in rows for part in np.array_split(row, PARTS, axis=1)]
    return np.round(means, 2).tolist()


def colored(folder: Path) -> dict[str, list[list[float]]]:
    model = write_model(folder / "model.onnx", (0.5, -0.4), (-22, 28))
    sources = make(folder / "in")
    result = invoke(folder / "in", folder / "out", "--model", model, "--device", "cpu")
    assert result.exit_code == 0, result.output
    return {source.name: parts(folder / "out" / source.name) for source in sources}


def test_pixels_equal_the_recorded_means(tmp_path):
    noted = json.loads(NOTES.read_text())
    found = colored(tmp_path)
    assert found.keys() == noted.keys()
    for name, means in found.items():
        assert np.abs(np.subtract(means, noted[name])).max() < TOLERANCE, name


@pytest.mark.parametrize(
    ("name", "mean", "nearly_all"),
    [("grey.png", 0.15, 0.7), ("large.png", 0.15, 0.7), ("grey.jpg", 0.2, 1.3), ("large.jpg", 0.2, 1.3)],
)
def test_output_lightness_equals_that_of_the_input(tmp_path, name, mean, nearly_all):
    colored(tmp_path)
    with Image.open(tmp_path / "in" / name) as before, Image.open(tmp_path / "out" / name) as after:
        levels, rgb = np.asarray(before), np.asarray(after)
    difference = np.abs(lab.srgb_to_lab(rgb / np.float32(255))[..., 0] - lightness.GRAY8[levels])
    assert difference.mean() < mean
    assert np.quantile(difference, 0.999) < nearly_all


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        NOTES.write_text(json.dumps(colored(Path(place)), indent=1) + "\n")

"""Fixtures for every test: stand-in models, whose chroma is a known function of L*, and pictures."""

import dataclasses
import importlib.resources
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

WORKING_SIZE = 64
MULTIPLE_OF = 16
METADATA = {
    "colorize.contract": "1",
    "colorize.name": "stand-in",
    "colorize.working_size": str(WORKING_SIZE),
    "colorize.multiple_of": str(MULTIPLE_OF),
    "colorize.trained_on": "nothing",
    "colorize.licence": "CC0-1.0",
    "colorize.config_hash": "0",
}


@dataclasses.dataclass(frozen=True)
class Models:
    """Paths of stand-in ONNX files.

    Attributes:
        grey: a* = b* = 0.
        tinted: a* = 0.4 (L* - 50), b* = 30 - 0.3 L*, L* averaged over 2 x 2 pixels.
        vivid: a* = 90, b* = -90 everywhere, outside sRGB at most lightnesses.
    """

    gray: Path
    tinted: Path
    vivid: Path

    @property
    def grey(self) -> Path:
        """`gray`, by the name that tests of the trainer still use."""
        return self.gray


def write_model(
    path: Path,
    gains: tuple[float, float],
    offsets: tuple[float, float],
    metadata: dict[str, str] | None = None,
) -> Path:
    """An ONNX file of the native contract: ab = gain * (L*, mean of 2 x 2) + offset."""
    constants = [
        helper.make_tensor("gains", TensorProto.FLOAT, [1, 2, 1, 1], gains),
        helper.make_tensor("offsets", TensorProto.FLOAT, [1, 2, 1, 1], offsets),
    ]
    nodes = [
        helper.make_node("AveragePool", ["lightness"], ["small"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Mul", ["small", "gains"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offsets"], ["ab"]),
    ]
    graph = helper.make_graph(
        nodes,
        "stand-in",
        [helper.make_tensor_value_info("lightness", TensorProto.FLOAT, ["n", 1, "h", "w"])],
        [helper.make_tensor_value_info("ab", TensorProto.FLOAT, ["n", 2, "h2", "w2"])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, METADATA if metadata is None else metadata)
    onnx.save(model, path)
    return path


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("models")
    return Models(
        gray=write_model(folder / "grey.onnx", (0, 0), (0, 0)),
        tinted=write_model(folder / "tinted.onnx", (0.4, -0.3), (-20, 30)),
        vivid=write_model(folder / "vivid.onnx", (0, 0), (90, -90)),
    )


@pytest.fixture(scope="session")
def bundled_model() -> Path:
    """The model that comes with the package; tests that need it fail without it."""
    path = Path(str(importlib.resources.files("colorize_cli").joinpath("models/default.onnx")))
    assert path.is_file(), f"{path} is missing"
    return path


@pytest.fixture(scope="session")
def gray_photo() -> npt.NDArray[np.uint8]:
    """A grey photograph, (120, 160) uint8: NASA's portrait of Eileen Collins, in the public domain."""
    from skimage import data

    return np.asarray(
        Image.fromarray(data.astronaut()).convert("L").resize((160, 160)).crop((0, 0, 160, 120))
    )


@pytest.fixture
def make_folder(gray_photo: npt.NDArray[np.uint8]) -> Callable[..., Path]:
    """Fills a folder with small grey pictures of several shapes and formats, in two levels."""

    def make(folder: Path, count: int = 12, suffixes: tuple[str, ...] = (".png", ".jpg")) -> Path:
        (folder / "sub").mkdir(parents=True)
        shapes = ((160, 120), (120, 160), (100, 100))
        for index in range(count):
            rolled = np.roll(gray_photo, 7 * index, axis=1)
            picture = Image.fromarray(rolled).resize(shapes[index % len(shapes)])
            parent = folder / "sub" if index % 2 else folder
            picture.save(parent / f"{index:04d}{suffixes[index % len(suffixes)]}")
        return folder

    return make

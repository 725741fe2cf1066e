"""Fixtures for all tests: pictures, and stand-in models whose chroma is a known function of L*."""

import importlib.resources
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import settings
from PIL import Image

from tests.helpers.models import Models, write_model

# The suite gives the same result for the same code: hypothesis draws the same examples in every run.
# `pytest --hypothesis-profile=random` draws new ones.
settings.register_profile("random", derandomize=False, deadline=None, max_examples=2000)
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.load_profile("fixed")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("models")
    return Models(
        gray=write_model(folder / "gray.onnx", (0, 0), (0, 0)),
        tinted=write_model(folder / "tinted.onnx", (0.4, -0.3), (-20, 30)),
        vivid=write_model(folder / "vivid.onnx", (0, 0), (90, -90)),
    )


@pytest.fixture(scope="session")
def bundled_model() -> Path:
    """The bundled model. Tests that need it fail without it."""
    path = Path(str(importlib.resources.files("colorize_cli").joinpath("models/default.onnx")))
    assert path.is_file(), f"{path} is missing"
    return path


@pytest.fixture(scope="session")
def gray_photo() -> npt.NDArray[np.uint8]:
    """A gray photograph, (120, 160) uint8: NASA's portrait of Eileen Collins, in the public domain."""
    from skimage import data

    return np.asarray(
        Image.fromarray(data.astronaut()).convert("L").resize((160, 160)).crop((0, 0, 160, 120))
    )


@pytest.fixture
def make_folder(gray_photo: npt.NDArray[np.uint8]) -> Callable[..., Path]:
    """Fill a folder with small gray pictures of several shapes and formats, in two levels."""

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

"""ONNX files with the signatures of other projects. Outputs are known functions of inputs."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from colorize_cli.color.lab import srgb_to_lab
from colorize_cli.color.lightness import GRAY8
from colorize_cli.core.errors import ModelError
from colorize_cli.core.settings import MODEL_KINDS
from colorize_cli.inference import adapters, model
from colorize_cli.inference.adapters import Signature, Tensor
from tests.helpers.cli import invoke
from tests.helpers.models import FLOAT, HALF, write_rgb_model
from tests.helpers.videos import Recipe, look, make


def expected(kind: str, lightness: np.ndarray) -> np.ndarray:
    """Return the chroma that the file predicts: (N, 1, H, W) to (N, 2, H, W)."""
    gray = np.interp(lightness[:, 0], GRAY8, np.arange(256) / 255)
    if kind == "ddcolor":
        return np.stack([40 * gray - 20, 20 - 30 * gray], axis=1)
    rgb = np.clip(np.stack([gray + 20 / 255, gray, gray - 20 / 255], axis=-1), 0, 1)
    return np.moveaxis(srgb_to_lab(rgb)[..., 1:], -1, 1)


@pytest.mark.parametrize("kind", ["ddcolor", "deoldify"])
@pytest.mark.parametrize("batch", [1, None, 4])
@pytest.mark.parametrize("dtype", [FLOAT, HALF])
def test_model_with_dynamic_sides_predicts_chroma(tmp_path, kind, batch, dtype):
    path = write_rgb_model(tmp_path / "m.onnx", kind, side=None, batch=batch, dtype=dtype)
    network = model.load(path, "cpu")
    assert (network.info.name, network.info.multiple_of) == (kind, 32)
    assert network.precision == ("fp16" if dtype == HALF else "fp32")
    lightness = np.random.default_rng(0).uniform(5, 95, (6, 1, 32, 64)).astype(np.float32)
    ab = network.predict(lightness)
    tolerance = 0.6 if dtype == HALF else 0.01
    np.testing.assert_allclose(ab, expected(kind, lightness), atol=tolerance)


@pytest.mark.parametrize(("batch", "used"), [(1, 1), (None, 1), (4, 4)])
def test_batch_size_of_parallel_calls_is_that_of_the_file(tmp_path, batch, used):
    path = write_rgb_model(tmp_path / "m.onnx", "ddcolor", side=64, batch=batch)
    assert model.load(path, "cpu", threads=2, parallel=2).batch_size == used


@pytest.mark.parametrize("kind", ["ddcolor", "deoldify"])
@pytest.mark.parametrize("batch", [1, None])
def test_model_with_fixed_sides_sees_the_stretched_picture(tmp_path, kind, batch):
    network = model.load(write_rgb_model(tmp_path / "m.onnx", kind, side=64, batch=batch), "cpu")
    assert network.info.working_size == 64
    ramp = np.broadcast_to(np.linspace(10, 90, 192, dtype=np.float32), (2, 1, 64, 192)).copy()
    ab = network.predict(ramp)
    assert ab.shape == (2, 2, 64, 64)
    thirds = ramp.reshape(2, 1, 64, 64, 3).mean(axis=-1)
    np.testing.assert_allclose(ab, expected(kind, thirds), atol=0.3)


@pytest.mark.parametrize("kind", ["ddcolor", "deoldify"])
@pytest.mark.parametrize("side", [64, None])
def test_folder_is_colorized_with_lightness_kept(tmp_path, make_folder, kind, side):
    path = write_rgb_model(tmp_path / "m.onnx", kind, side=side, batch=1)
    folder = make_folder(tmp_path / "in", 4, suffixes=(".png",))
    result = invoke(folder, tmp_path / "out", "--model", path, "--device", "cpu", "--size", 64, "--json")
    assert result.exit_code == 0, result.output
    outcomes = [json.loads(line) for line in result.stdout.splitlines()]
    assert [one["status"] for one in outcomes] == ["done"] * 4
    for one in outcomes:
        with Image.open(one["source"]) as before, Image.open(one["destination"]) as after:
            levels, rgb = np.asarray(before), np.asarray(after)
        assert rgb.shape[:2] == levels.shape
        lab = srgb_to_lab(rgb / np.float32(255))
        assert np.abs(lab[..., 0] - GRAY8[levels]).mean() < 0.3
        middle = (levels > 100) & (levels < 150)
        wanted = expected(kind, GRAY8[levels][None, None])[0][:, middle]
        assert np.abs(np.moveaxis(lab[..., 1:], -1, 0)[:, middle] - wanted).mean() < 3


def test_video_is_colorized(tmp_path):
    path = write_rgb_model(tmp_path / "m.onnx", "ddcolor", side=64, batch=1)
    source = make(tmp_path / "a.mkv", Recipe(frames=20))
    result = invoke(source, tmp_path / "b.mkv", "--model", path, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert look(tmp_path / "b.mkv").chroma > 1
    assert look(tmp_path / "b.mkv").times == look(source).times


def test_model_kinds_equal_the_table():
    assert set(MODEL_KINDS) == set(adapters.MODEL_FORMATS)


def signature(outputs: int | str, **metadata: str) -> Signature:
    given = Tensor("input", "tensor(float)", ("n", 3, 256, 256))
    return Signature((given,), (Tensor("output", "tensor(float)", ("n", outputs, 256, 256)),), metadata)


def test_ambiguous_signature_asks_for_model_kind():
    with pytest.raises(ModelError, match="--model-kind") as caught:
        adapters.recognize(signature("c"))
    assert "(n, c, 256, 256)" in str(caught.value)
    assert adapters.recognize(signature("c"), "ddcolor").info.name == "ddcolor"
    assert adapters.recognize(signature("c"), "deoldify").info.name == "deoldify"


def test_impossible_model_kind_is_refused():
    with pytest.raises(ModelError, match="not a file of kind deoldify"):
        adapters.recognize(signature(2), "deoldify")
    with pytest.raises(ModelError, match=r"Accepted are native.*ddcolor.*deoldify"):
        adapters.recognize(signature(5))


def test_wrong_model_kind_exits_2_with_the_signature(tmp_path, models):
    path = write_rgb_model(tmp_path / "m.onnx", "ddcolor", side=64, batch=1)
    Image.new("L", (64, 64), 100).save(tmp_path / "a.png")
    line = [sys.executable, "-m", "colorize_cli", tmp_path / "a.png", tmp_path / "b.png", "--device", "cpu"]
    done = subprocess.run(
        [*line, "--model", path, "--model-kind", "native"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "input tensor(float) (1, 3, 64, 64)" in done.stderr
    assert "not a file of kind native" in done.stderr

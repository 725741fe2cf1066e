import hashlib

import cv2
import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import trainer.quantize
from colorize_cli.core.errors import DeviceError, ModelError
from colorize_cli.inference import model, sessions
from trainer.cli import main
from trainer.config import Config, ModelConfig
from trainer.export import ExportError, ModelFacts, export
from trainer.models import build_generator
from trainer.quantize import quantize


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A small network with convolutions between those that stay in fp32."""
    torch.manual_seed(0)
    config = Config(model=ModelConfig("pix2pix_unet", width=8, depth=6))
    generator = build_generator(config.model)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    path = tmp_path_factory.mktemp("quantize") / "net.onnx"
    export(generator.eval(), config, ModelFacts("small", 64, "noise", "CC0"), path)
    return path


@pytest.fixture(scope="module")
def copies() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    noise = random.uniform(0, 100, (16, 16, 16)).astype(np.float32)
    return [np.clip(cv2.resize(plane, (64, 64), interpolation=cv2.INTER_CUBIC), 0, 100) for plane in noise]


@pytest.fixture(scope="module")
def variant(exported, copies):
    path = exported.with_stem("net-int8")
    quantize(exported, copies, path)
    return path


def test_int8_variant_has_integer_nodes_and_names_its_source(exported, variant):
    made = onnx.load(variant)
    kinds = [node.op_type for node in made.graph.node]
    assert kinds.count("QuantizeLinear") >= 3
    said = {entry.key: entry.value for entry in made.metadata_props}
    assert said["colorize.precision"] == "int8"
    assert said["colorize.variant_of"] == hashlib.sha256(exported.read_bytes()).hexdigest()
    assert said["colorize.name"] == "small"


def test_int8_variant_predicts_nearly_the_same(exported, variant, copies):
    one, other = (model.load(path, "cpu", precision="fp32") for path in (exported, variant))
    batch = np.stack(copies)[:, None]
    exact, found = one.predict(batch), other.predict(batch)
    assert 0 < np.abs(exact - found).mean() < 1


def test_int8_variant_is_chosen_by_auto_on_the_cpu_only(exported, variant):
    assert variant.is_file()
    assert model.load(exported, "cpu").precision == "int8"
    assert model.load(exported, "cpu", precision="int8").precision == "int8"
    assert model.load(exported, "cpu", precision="fp32").precision == "fp32"
    assert model.load(exported, "auto", precision="int8").device == "cpu"
    with pytest.raises(DeviceError, match="int8 runs only on the CPU"):
        model.load(exported, "cuda", precision="int8")


@pytest.fixture(scope="module")
def half(exported, copies):
    path = exported.with_stem("net-fp16")
    quantize(exported, copies, path, "fp16")
    return path


@pytest.fixture
def gpu(monkeypatch):
    """Replace the GPU by the CPU."""
    monkeypatch.setattr(sessions, "on_gpus", lambda data, gpus: [sessions.on_cpu(data, 1)] * len(gpus))


def test_fp16_variant_differs_by_less_than_a_tenth(exported, half, copies):
    kinds = {tensor.data_type for tensor in onnx.load(half).graph.initializer if len(tensor.dims) == 4}
    assert kinds == {onnx.TensorProto.FLOAT16}
    one, other = (model.load(path, "cpu", precision="fp32") for path in (exported, half))
    batch = np.stack(copies)[:, None]
    assert 0 < np.abs(one.predict(batch) - other.predict(batch)).mean() < 0.1


def test_fp16_variant_is_used_on_gpus_on_request(exported, half, gpu):
    assert half.is_file()
    found = model.load(exported, "cuda:0,1", precision="fp16")
    assert (found.precision, found.device, found.parallel) == ("fp16", "cuda", 2)
    assert model.load(exported, "auto", precision="fp16").precision == "fp16"
    assert model.load(exported, "cuda").precision == "fp32"
    with pytest.raises(DeviceError, match="fp16 runs only on GPUs"):
        model.load(exported, "cpu", precision="fp16")


def test_fp16_variant_that_differs_too_much_is_refused(exported, half, gpu, monkeypatch):
    monkeypatch.setattr(model, "_MOST_DIFFERENCE", 1e-6)
    for device in ("cuda", "auto"):
        with pytest.raises(DeviceError, match="fp16 differs from fp32 by"):
            model.load(exported, device, precision="fp16")


def test_fp16_without_variant_or_gpu_is_an_error(exported, models, gpu, tmp_path, monkeypatch):
    with pytest.raises(ModelError, match="no fp16 variant"):
        model.load(models.tinted, "cuda", precision="fp16")

    def none(*_):
        raise DeviceError("no NVIDIA driver")

    monkeypatch.setattr(sessions, "on_gpus", none)
    with pytest.raises(DeviceError, match="no NVIDIA driver"):
        model.load(exported, "auto", precision="fp16")


def test_variant_of_another_file_is_refused(variant, models, tmp_path):
    other = tmp_path / "m.onnx"
    other.write_bytes(models.tinted.read_bytes())
    with pytest.raises(ModelError, match="no int8 variant"):
        model.load(other, "cpu", precision="int8")
    (tmp_path / "m-int8.onnx").write_bytes(variant.read_bytes())
    assert model.load(other, "cpu").precision == "fp32"
    with pytest.raises(ModelError, match="made from another file"):
        model.load(other, "cpu", precision="int8")


def test_quantize_result_that_differs_too_much_is_refused(exported, copies, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer.quantize, "MOST_DIFFERENCE", 0.0)
    with pytest.raises(ExportError, match="differ by"):
        quantize(exported, copies, tmp_path / "q.onnx")
    assert not (tmp_path / "q.onnx").exists()
    with pytest.raises(ExportError, match="too few"):
        quantize(exported, copies[:3], tmp_path / "q.onnx")


def test_command_quantizes_and_reports_the_difference(exported, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    random = np.random.default_rng(1)
    for number in range(12):
        pixels = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((96, 72), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    (folder / "bad.png").write_bytes(b"not a picture")
    result = CliRunner().invoke(main, ["quantize", str(exported), str(tmp_path / "q.onnx"), str(folder)])
    assert result.exit_code == 0, result.output
    assert "left out bad.png: unreadable (UnidentifiedImageError)\n" in result.stderr
    assert "differ by" in result.output
    result = CliRunner().invoke(
        main, ["quantize", str(tmp_path / "none.onnx"), str(tmp_path / "q.onnx"), str(folder)]
    )
    assert result.exit_code == 1
    assert "none.onnx" in result.output

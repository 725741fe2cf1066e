"""Recipes by name."""

from __future__ import annotations

from trainer.config import AugmentConfig, Config, FilmConfig, Phase

# A fifth of the samples stay as clean as the photographs that they come from.
_OLD_PHOTOGRAPHS = FilmConfig(
    spectral=0.25, softness=0.2, contrast=0.25, grain=0.2, fading=0.2, damage=0.2, jpeg=0.15
)

PRESETS: dict[str, Config] = {
    # Reconstruction on small pictures, then on larger ones while the learning rate falls, then the GAN.
    "photo": Config(
        phases=(
            Phase(
                samples=470_000,
                crop_size=64,
                batch_size=48,
                warmup=5_000,
                learning_rate=1e-3,
                final_learning_rate=1e-3,
            ),
            Phase(
                samples=260_000,
                crop_size=80,
                batch_size=48,
                learning_rate=1e-3,
                final_learning_rate=6e-4,
            ),
            Phase(
                samples=100_000,
                crop_size=96,
                batch_size=48,
                learning_rate=6e-4,
                final_learning_rate=1e-5,
            ),
            Phase(
                samples=16_000,
                crop_size=96,
                warmup=1_000,
                learning_rate=1e-4,
                final_learning_rate=1e-5,
                adversarial=0.15,
                feature_matching=1.5,
            ),
        ),
        augment=AugmentConfig(film=_OLD_PHOTOGRAPHS),
        evaluate_size=96,
    ),
}

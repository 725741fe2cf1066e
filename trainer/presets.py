"""Recipes by name."""

from __future__ import annotations

from dataclasses import replace

from trainer.config import AugmentConfig, Config, DegradationConfig, LossConfig, ModelConfig, Phase

# A fifth of the samples stay as clean as the photographs that they come from.
_OLD_PHOTOGRAPHS = DegradationConfig(
    spectral=0.25, softness=0.2, contrast=0.25, grain=0.2, fading=0.2, damage=0.2, jpeg=0.15
)

# Pictures of 32 x 32 pixels are taken whole: what lies at their rim is part of the thing.
_WHOLE_PICTURES = AugmentConfig(min_scale=1.0, aspect=0.0)

# Isola et al. 2017: L1 with the weight of 100 against an adversarial loss of 1, Adam at 2e-4, all colors
# weighed alike. The U-Net halves 32 pixels four times, the PatchGAN's patches are 16 x 16.
_PIX2PIX = Config(
    phases=(
        Phase(samples=350_000, crop_size=32, learning_rate=2e-4, final_learning_rate=1e-5),
        Phase(samples=30_000, crop_size=32, learning_rate=1e-5, final_learning_rate=1e-5),
    ),
    model=ModelConfig(
        generator="pix2pix_unet", width=64, depth=4, discriminator_layers=1, spectral_norm=False
    ),
    loss=LossConfig(reconstruction="l1", saturation_weight=0.0, gan="cross_entropy"),
    augment=_WHOLE_PICTURES,
    optimizer="adamw",
    weight_decay=0.0,
    evaluate_size=32,
)

PRESETS: dict[str, Config] = {
    # The U-Net as an autoencoder: reconstruction loss only.
    "cifar10-unet": _PIX2PIX,
    # The same network, batches and rates against a discriminator. An update takes twice as long, so there are
    # fewer of them.
    "cifar10-pix2pix": replace(
        _PIX2PIX,
        phases=tuple(
            replace(phase, samples=samples, adversarial=0.01)
            for phase, samples in zip(_PIX2PIX.phases, (240_000, 90_000), strict=True)
        ),
    ),
    # From the bundled model's weights (`--start-from trainer/pretrained/photo.safetensors`), because 50,000
    # small pictures are too few to learn from alone what has which color. The network enlarges its input four
    # times, to the scale of the pictures that it was trained on. Fidelity first; then the GAN, briefly, for
    # the strength of the colors.
    "cifar10": Config(
        phases=(
            Phase(
                samples=180_000,
                crop_size=32,
                batch_size=64,
                warmup=3_000,
                learning_rate=6e-4,
                final_learning_rate=1e-5,
            ),
            Phase(
                samples=25_000,
                crop_size=32,
                warmup=1_000,
                learning_rate=1e-4,
                final_learning_rate=1e-5,
                adversarial=1.0,
                feature_matching=5.0,
                discriminator_learning_rate=1e-4,
            ),
        ),
        model=ModelConfig(enlarge=4, frozen_blocks=0, discriminator_layers=1),
        loss=LossConfig(reconstruction="log_mse_rgb", beta=3.0, saturation_weight=0.0),
        # Crops, because it begins to learn whole pictures by heart.
        augment=AugmentConfig(min_scale=0.7, aspect=0.1, film=DegradationConfig(contrast=0.3, grain=0.1)),
        weight_decay=5e-2,
        ema_decay=0.999,
        evaluate_size=32,
    ),
    # Fidelity first; then the perceptual loss, briefly, for realism; then the GAN, briefly, for the strength
    # of the colors. At export, half of the weights before the GAN phase is mixed in (`--blend`). The crops
    # are nearly whole pictures at nearly their stored size: smaller windows would be enlarged and blurred.
    "photo": Config(
        phases=(
            Phase(
                samples=140_000,
                crop_size=128,
                batch_size=48,
                warmup=3_000,
                learning_rate=5e-4,
                final_learning_rate=1e-5,
            ),
            Phase(
                samples=24_000,
                crop_size=128,
                batch_size=48,
                warmup=1_000,
                learning_rate=2e-4,
                final_learning_rate=1e-5,
                losses={"perceptual": 6.0},
            ),
            Phase(
                samples=15_984,
                crop_size=128,
                batch_size=48,
                warmup=1_000,
                learning_rate=2e-4,
                final_learning_rate=1e-5,
                losses={"perceptual": 6.0},
                adversarial=0.3,
            ),
        ),
        model=ModelConfig(discriminator="projected"),
        loss=LossConfig(reconstruction="log_mse_rgb", beta=8.0, saturation_weight=2.0),
        augment=AugmentConfig(min_scale=0.85, film=_OLD_PHOTOGRAPHS),
        evaluate_size=128,
    ),
    # For a few hundred pictures of one kind, from the bundled model's weights. Batches are small, because
    # there is little time. More of each crop is cut away than in `photo`, because there are few. After 1,600
    # samples of 300 pictures of groceries, the gain at 65 % of the true colorfulness was 6.12 dB with a rate
    # of 2e-4, 6.41 dB with 5e-4 and 6.43 dB with 1e-3 (with batches of 32, 6.09 dB at 5e-4). Without the
    # perceptual loss, KID becomes worse than before.
    "finetune": Config(
        phases=(
            Phase(
                samples=10_000,
                crop_size=128,
                batch_size=16,
                warmup=500,
                learning_rate=5e-4,
                final_learning_rate=1e-5,
                losses={"perceptual": 6.0},
            ),
        ),
        loss=LossConfig(reconstruction="log_mse_rgb", beta=8.0, saturation_weight=2.0),
        augment=AugmentConfig(min_scale=0.7, film=replace(_OLD_PHOTOGRAPHS, spectral=0.1)),
        start_from="photo",
        ema_decay=0.99,
        evaluate_every=2_000,
        checkpoint_every=2_000,
        evaluate_size=128,
    ),
}

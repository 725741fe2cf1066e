import copy
import dataclasses
import json

import pytest

from trainer.config import (
    Config,
    ConfigError,
    DegradationConfig,
    ModelConfig,
    Phase,
    from_json,
    override,
    to_json,
    with_samples,
)

TWO_PHASES = Config(phases=(Phase(samples=100), Phase(samples=50, adversarial=0.1)))
TWO_PHASES_OF_GAN = Config(
    phases=(Phase(adversarial=0.2), Phase(adversarial=0.1, feature_matching=1.0, losses={"mine": 1.0}))
)
OTHER_NAMES = {
    "generator": "pix2pix_unet",
    "reconstruction": "l1",
    "gan": "cross_entropy",
    "optimizer": "adamw",
    "precision": "bf16-mixed",
    "encoder": "efficientnet_lite2",
    "discriminator": "projected",
    "start_from": "earlier.pt",
}


def leaves(tree, path=()):
    """Yield the paths of all plain values of a JSON tree."""
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(value, (*path, key))
    else:
        yield path


def changed(name, value):
    """Return another valid value of a field."""
    if name == "enlarge":
        return 2 * value
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 16
    return OTHER_NAMES[name] if isinstance(value, str) else 0.5 * value + 0.01


def test_config_round_trips_through_json():
    config = Config(
        phases=(Phase(samples=7), Phase(warmup=3)), model=ModelConfig(spectral_norm=False), seed=5
    )
    assert from_json(to_json(config)) == config


def test_hash_of_equal_configs_is_equal():
    assert Config().hash == Config().hash == from_json(to_json(Config())).hash
    assert len(Config().hash) == 16


def test_hash_survives_json_with_whole_numbers():
    config = Config(weight_decay=0, phases=(Phase(learning_rate=1),))
    assert from_json(to_json(config)).hash == config.hash


@pytest.mark.parametrize(
    "path", list(leaves(json.loads(to_json(TWO_PHASES_OF_GAN)))), ids=lambda p: ".".join(map(str, p))
)
def test_hash_depends_on_every_field(path):
    tree = json.loads(to_json(TWO_PHASES_OF_GAN))
    *parents, last = path
    node = tree
    for key in parents:
        node = node[key]
    node[last] = changed(last, node[last])
    assert from_json(json.dumps(tree)).hash != TWO_PHASES_OF_GAN.hash


def test_override_reaches_every_level():
    config = override(
        TWO_PHASES,
        [
            "seed=3",
            "loss.beta=5",
            "loss.gan=cross_entropy",
            "phases.1.samples=9",
            "augment.flip=false",
            "augment.film.jpeg=1",
        ],
    )
    assert (config.seed, config.loss.beta, config.loss.gan) == (3, 5.0, "cross_entropy")
    assert config.phases == (Phase(samples=100), Phase(samples=9, adversarial=0.1))
    assert config.augment.flip is False
    assert config.augment.film == DegradationConfig(jpeg=1.0)
    assert override(config, []) == config


def test_override_does_not_change_the_original():
    before = copy.deepcopy(TWO_PHASES)
    override(TWO_PHASES, ["phases.0.samples=1", "model.width=8"])
    assert before == TWO_PHASES


def test_override_of_phases_replaces_all():
    assert override(TWO_PHASES, ['phases=[{"samples": 5, "batch_size": 2}]']).phases == (
        Phase(samples=5, batch_size=2),
    )


def test_override_given_twice_uses_the_last():
    assert override(Config(), ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    "assignment",
    [
        "seed",  # no value
        "=3",
        "color=3",  # no such field
        "loss.color=3",
        "loss.beta.more=3",
        "phases.2.samples=3",
        "phases.x.samples=3",
        "phases.0.color=3",
        "phases.0=3",
        "loss.perceptual=3",
        "losses.mine=3",
        "phases.0.losses=3",
        "phases.0.losses.mine=high",
        "phases.0.losses.mine.more=3",
        'phases=[{"losses": 3, "perceptual": 1}]',
        "hash=3",  # a property, not a field
        "seed=1.5",  # wrong types
        "seed=true",
        "seed=many",
        "seed=null",
        "start_from=3",
        "start_from=null",
        "ema_decay=high",
        "ema_decay=true",
        "augment.flip=1",
        "augment.flip=no",
        "augment.film=0.5",
        "augment.film.rain=0.5",
        "augment.film.grain=much",
        "augment.film.grain=true",
        "precision=32",
        "loss=3",
        "model=[]",
        "phases=3",
        "phases=true",
        "phases=many",
        "phases=[3]",
        "phases=[]",
        'phases={"samples": 3}',
    ],
)
def test_override_of_wrong_name_or_type_is_a_config_error(assignment):
    with pytest.raises(ConfigError):
        override(TWO_PHASES, [assignment])


@pytest.mark.parametrize(
    "assignment",
    [
        "phases.0.samples=0",
        "phases.0.crop_size=0",
        "phases.0.batch_size=-1",
        "phases.0.learning_rate=-1",
        "phases.0.learning_rate=NaN",
        "phases.0.adversarial=-1",
        "phases.0.feature_matching=1",  # nothing to match without a discriminator
        "evaluate_every=0",
        "checkpoint_every=0",
        "evaluate_size=0",
        "gradient_clip=0",
        "ema_decay=1.5",
        "augment.min_scale=1.5",
        "augment.aspect=-2",
        "augment.film.spectral=1.5",
        "augment.film.damage=-0.1",
        "augment.film.jpeg=NaN",
        "loss.beta=0",
        "loss.saturated_chroma=0",
        "model.width=0",
        "model.discriminator_width=0",
        "model.enlarge=0",
        "model.enlarge=3",
        "model.enlarge=8",
        "model.frozen_blocks=-1",
        "encoder_rate=-0.1",
        "encoder_rate=NaN",
        "encoder_rate=Infinity",
        "phases.0.perceptual=-1",
        "phases.0.perceptual=NaN",
        "phases.0.losses.mine=-1",
        "minutes=-1",
        "minutes=Infinity",
    ],
)
def test_override_with_untrainable_value_is_a_config_error(assignment):
    with pytest.raises(ConfigError):
        override(TWO_PHASES, [assignment])


def test_config_without_film_field_has_no_film():
    tree = json.loads(to_json(TWO_PHASES))
    del tree["augment"]["film"]
    assert from_json(json.dumps(tree)) == TWO_PHASES
    assert set(dataclasses.asdict(TWO_PHASES.augment.film).values()) == {0.0}


def test_start_from_defaults_to_empty_and_accepts_any_path():
    assert Config().start_from == ""
    assert override(Config(), ['start_from="1"']).start_from == "1"
    assert override(Config(), ["start_from=a folder/weights.safetensors"]).start_from.endswith(
        "weights.safetensors"
    )


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"color": 1}', '{"phases": 3}', '{"seed": "x"}'])
def test_from_json_of_damaged_text_is_a_config_error(text):
    with pytest.raises(ConfigError):
        from_json(text)


@pytest.mark.parametrize(
    ("seen", "phase", "within"), [(0, 0, 0), (99, 0, 99), (100, 1, 0), (101, 1, 1), (149, 1, 49)]
)
def test_phase_at_switches_at_the_first_sample_of_a_phase(seen, phase, within):
    assert TWO_PHASES.phase_at(seen) == (TWO_PHASES.phases[phase], within)


@pytest.mark.parametrize("seen", [150, 10_000])
def test_phase_at_after_the_last_sample_is_a_config_error(seen):
    assert TWO_PHASES.total_samples == 150
    with pytest.raises(ConfigError, match="150"):
        TWO_PHASES.phase_at(seen)


def test_adversarial_is_true_if_any_phase_is_adversarial():
    assert TWO_PHASES.adversarial
    assert not Config().adversarial


def test_used_losses_are_those_with_a_weight_in_any_phase():
    phases = (Phase(losses={"perceptual": 0.0}), Phase(losses={"mine": 0.1, "another": 1.0}))
    assert Config(phases=phases).used_losses == ["another", "mine"]
    assert TWO_PHASES.used_losses == []


def test_losses_of_a_phase_are_set_by_name():
    config = override(TWO_PHASES, ["phases.0.losses.mine=2", 'phases.1.losses={"mine": 1, "another": 0.5}'])
    assert [phase.losses for phase in config.phases] == [{"mine": 2.0}, {"mine": 1.0, "another": 0.5}]


def test_perceptual_weight_of_earlier_versions_is_read():
    weighted = override(TWO_PHASES, ["phases.0.perceptual=6"])
    assert weighted.phases[0].losses == {"perceptual": 6.0}
    assert override(weighted, ["phases.0.perceptual=0"]) == TWO_PHASES
    tree = json.loads(to_json(TWO_PHASES))
    for phase, weight in zip(tree["phases"], (0.0, 6.0), strict=True):
        del phase["losses"]
        phase["perceptual"] = weight
    assert [phase.losses for phase in from_json(json.dumps(tree)).phases] == [{}, {"perceptual": 6.0}]


def test_position_follows_the_samples_or_the_time():
    assert TWO_PHASES.position(70, seconds=9.0) == 70
    timed = dataclasses.replace(TWO_PHASES, minutes=2.0)
    assert [timed.position(70, seconds) for seconds in (0.0, 60.0, 119.0, 120.0, 500.0)] == [
        0,
        75,
        148,
        150,
        150,
    ]


@pytest.mark.parametrize("samples", [2, 7, 149, 150, 100_000])
def test_with_samples_scales_the_phases_to_exactly_the_number(samples):
    phases = (Phase(samples=100, warmup=50), Phase(samples=50, adversarial=0.1))
    config = with_samples(Config(phases=phases), samples)
    assert config.total_samples == samples
    assert config.phases[0].samples == pytest.approx(2 / 3 * samples, abs=0.5)
    assert config.phases[0].warmup == pytest.approx(1 / 3 * samples, abs=0.5)
    assert config.phases[1].adversarial == 0.1


def test_with_samples_that_leave_a_phase_empty_is_a_config_error():
    with pytest.raises(ConfigError, match=r"phases\.0\.samples: must be positive"):
        with_samples(Config(phases=(Phase(samples=10), Phase(samples=90))), 2)


def test_override_of_phases_then_of_a_default_field_works():
    config = override(Config(), ['phases=[{"samples": 5}]', "phases.0.batch_size=2"])
    assert config.phases == (Phase(samples=5, batch_size=2),)


def test_published_config_names_no_directory():
    config = Config(start_from="/home/alice/secret/run.pt")
    assert config.published.start_from == "run.pt"
    assert config.hash == Config(start_from="elsewhere/run.pt").hash

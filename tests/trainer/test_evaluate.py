import io
import json
import math
import tarfile
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from scipy.spatial.distance import jensenshannon
from skimage.color import deltaE_ciede2000
from skimage.metrics import structural_similarity

import trainer.evaluate
from colorize_cli.color.lab import srgb_to_lab
from colorize_cli.core.errors import ColorizeError
from colorize_cli.inference.model import load
from trainer.checkpoint import CheckpointError, load_generator
from trainer.cli import main
from trainer.data import cifar10
from trainer.data.cifar10 import SPLITS, prepare_cifar10
from trainer.data.prepare import CROPS_NAME, MANIFEST_NAME, DataError
from trainer.evaluate import (
    Sample,
    evaluate,
    load_predictor,
    predict_samples,
    strength_for,
    write_sheet,
)
from trainer.scores import Evaluation, GainAtShare, Scores, Truth


@pytest.fixture
def pictures(tmp_path, picture) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed in range(4):
        picture(seed, 48, 64).save(folder / f"{seed}.png")
    return folder


@pytest.fixture
def tinted(models, pictures) -> list[Sample]:
    return predict_samples([pictures], load(models.tinted, "cpu", threads=1))


@pytest.fixture
def mixed(models, tmp_path, picture) -> list[Sample]:
    """Seven pictures of three shapes, with different shapes next to each other."""
    shapes = [(48, 64), (20, 33), (64, 48), (48, 64), (20, 33), (64, 48), (48, 64)]
    (tmp_path / "mixed").mkdir()
    for seed, shape in enumerate(shapes):
        picture(seed, *shape).save(tmp_path / "mixed" / f"{seed}.png")
    return predict_samples([tmp_path / "mixed"], load(models.tinted, "cpu", threads=1))


def invoke(*arguments: object) -> Result:
    """Run `evaluate` without the measures of realism, which test_realism.py covers."""
    return CliRunner().invoke(main, ["evaluate", "--no-realism", *map(str, arguments)])


def assert_one_line_error(result: Result, *names: object) -> None:
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1, result.stderr
    assert all(str(name) in result.stderr for name in names), result.stderr


def measured(scores: Scores | Truth) -> dict[str, float]:
    """Return the scores without the measures of realism, which are not computed here."""
    return {name: value for name, value in asdict(scores).items() if name not in {"kid", "true_class"}}


def test_evaluate_of_a_gray_model_has_no_gain(models, pictures):
    figures = evaluate(predict_samples([pictures], load(models.gray, "cpu", threads=1)))
    assert figures.pictures == 4
    assert figures.gain == 0
    assert figures.colorfulness_share == 0
    assert figures.model == figures.gray
    assert figures.gray.colorfulness == pytest.approx(0, abs=1e-4)
    assert figures.gray.mean_a == pytest.approx(0, abs=0.01)
    assert figures.gray.mean_b == pytest.approx(0, abs=0.01)
    assert figures.gray.colorfulness_gap == pytest.approx(figures.truth.colorfulness)


def test_evaluate_at_strength_0_equals_gray(tinted):
    figures = evaluate(tinted, 0.0)
    assert figures.model == figures.gray == evaluate(tinted).gray
    assert figures.strength == 0


def test_gray_baseline_is_the_truth_without_chroma(tinted):
    errors = [
        ((sample.render(0.0).astype(float) - sample.truth.astype(float)) / 255) ** 2 for sample in tinted
    ]
    expected = np.mean([-10 * np.log10(error.mean()) for error in errors])
    assert evaluate(tinted).gray.psnr == pytest.approx(expected, abs=1e-3)


def hasler_suesstrunk(rgb: np.ndarray) -> float:
    red, green, blue = np.moveaxis(rgb.astype(float), -1, 0)
    rg, yb = red - green, (red + green) / 2 - blue
    return math.hypot(rg.std(), yb.std()) + 0.3 * math.hypot(rg.mean(), yb.mean())


def expected_scores(colored: list[np.ndarray], truths: list[np.ndarray]) -> Scores:
    """Compute all scores of (H, W, 3) 8-bit pictures independently, by numpy, scipy and scikit-image."""
    rows = []
    for one, truth in zip(colored, truths, strict=True):
        error = np.abs(one.astype(int) - truth.astype(int))
        lab, true_lab = (srgb_to_lab(rgb / 255).astype(float) for rgb in (one, truth))
        rows.append(
            {
                "psnr": 10 * np.log10(255**2 / (error**2).mean()),
                "ssim": structural_similarity(
                    one / 255,
                    truth / 255,
                    gaussian_weights=True,
                    sigma=1.5,
                    use_sample_covariance=False,
                    data_range=1.0,
                    channel_axis=-1,
                ),
                "mae_rgb": error.mean() / 2.55,
                "mae_ab": np.abs(lab - true_lab)[..., 1:].mean(),
                "accuracy_2": 100 * (error.max(-1) <= 5).mean(),
                "accuracy_5": 100 * (error.max(-1) <= 12).mean(),
                "ciede2000": deltaE_ciede2000(lab, true_lab).mean(),
                "colorfulness": hasler_suesstrunk(one),
                "mean_a": lab[..., 1].mean(),
                "mean_b": lab[..., 2].mean(),
            }
        )
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    gap = means["colorfulness"] - np.mean([hasler_suesstrunk(truth) for truth in truths])
    ab, true_ab = (
        np.concatenate([srgb_to_lab(rgb / 255)[..., 1:].reshape(-1, 2) for rgb in kind]).astype(float)
        for kind in (colored, truths)
    )
    errors = np.minimum(np.hypot(*(ab - true_ab).T), 150)
    edges = np.arange(-135, 136, 10)
    histograms = [np.histogram2d(*kind.T, bins=edges)[0].ravel() for kind in (ab, true_ab)]
    cells = np.unique(np.digitize(true_ab, edges), axis=0, return_inverse=True)[1]
    by_cell = [errors[cells == cell].mean() for cell in range(cells.max() + 1)]
    return Scores(
        colorfulness_gap=abs(gap),
        auc=100 * (1 - errors.mean() / 150),
        auc_balanced=100 * (1 - np.mean(by_cell) / 150),
        jensen_shannon=float(jensenshannon(*histograms, base=2)),
        **means,
    )


@pytest.mark.parametrize("strength", [1.0, 2.5])
def test_scores_equal_independent_computations(mixed, strength):
    figures = evaluate(mixed, strength)
    truths = [sample.truth for sample in mixed]
    for scores, at in ((figures.model, strength), (figures.gray, 0.0)):
        expected = expected_scores([sample.render(at) for sample in mixed], truths)
        assert (scores.kid, scores.true_class) == (None, None)
        for name, value in measured(expected).items():
            assert getattr(scores, name) == pytest.approx(value, rel=1e-3, abs=1e-3), name
    truth = expected_scores(truths, [255 - truth for truth in truths])
    assert figures.truth.colorfulness == pytest.approx(truth.colorfulness, rel=1e-4)
    assert figures.truth.mean_a == pytest.approx(truth.mean_a, abs=1e-3)
    assert figures.truth.mean_b == pytest.approx(truth.mean_b, abs=1e-3)


def test_gain_is_above_gray_and_share_is_of_the_truth(tinted):
    figures = evaluate(tinted, 0.5)
    assert (figures.pictures, figures.strength) == (4, 0.5)
    assert figures.gain == figures.model.psnr - figures.gray.psnr != 0
    assert figures.colorfulness_share == figures.model.colorfulness / figures.truth.colorfulness


class Knowing:
    """A predictor that returns the true color of pictures with a single color each."""

    def __init__(self, info: object, *colors: tuple[float, float]) -> None:
        self.info, self.colors = info, list(colors)

    def predict(self, lightness: np.ndarray) -> np.ndarray:
        ab = np.array(self.colors.pop(0), np.float32).reshape(1, 2, 1, 1)
        return np.tile(ab, (1, 1, *lightness.shape[2:]))


def test_evaluate_of_the_true_colors_scores_best(models, tmp_path):
    """Except for rounding, on pictures of one color each, which can be predicted exactly."""
    colors = [(200, 90, 60), (70, 110, 180), (120, 150, 90)]
    for number, color in enumerate(colors):
        Image.new("RGB", (24, 20), color).save(tmp_path / f"{number}.png")
    ab = [tuple(srgb_to_lab(np.array(color) / 255)[1:]) for color in colors]
    model = Knowing(load(models.gray, "cpu", threads=1).info, *ab)
    figures = evaluate(predict_samples([tmp_path], model))
    assert figures.model.accuracy_2 == figures.model.accuracy_5 == 100
    assert figures.model.ssim == pytest.approx(1, abs=1e-3)
    assert figures.model.psnr > 45
    assert figures.model.auc > 99.5
    assert figures.model.auc_balanced > 99.5
    assert figures.model.ciede2000 < 0.5
    assert figures.model.jensen_shannon == pytest.approx(0, abs=1e-6)
    assert figures.model.colorfulness_gap < 1
    assert figures.colorfulness_share == pytest.approx(1, abs=0.02)
    assert figures.gray.accuracy_5 == 0
    assert figures.gray.jensen_shannon == pytest.approx(1)


def test_scores_are_means_over_pictures(mixed):
    whole = evaluate(mixed)
    alone = [evaluate([sample]) for sample in mixed]
    over_the_set = {"colorfulness_gap", "auc", "auc_balanced", "jensen_shannon"}
    for name in {field.name for field in fields(Scores)} - over_the_set - {"kid", "true_class"}:
        for kind in ("model", "gray"):
            expected = np.mean([getattr(getattr(one, kind), name) for one in alone])
            assert getattr(getattr(whole, kind), name) == pytest.approx(expected, rel=1e-4, abs=1e-4), name
    gap = abs(whole.model.colorfulness - whole.truth.colorfulness)
    assert whole.model.colorfulness_gap == pytest.approx(gap)


@pytest.mark.parametrize("pixels", [1, 48 * 64 * 2, 1 << 30])
def test_scores_are_independent_of_batches_and_order(mixed, monkeypatch, pixels):
    expected = evaluate(mixed)
    monkeypatch.setattr(trainer.evaluate, "_BATCH_PIXELS", pixels)
    together = sorted(mixed, key=lambda sample: sample.truth.shape)
    for samples in (mixed, together, mixed[::-1]):
        figures = evaluate(samples)
        assert (figures.pictures, figures.strength) == (expected.pictures, expected.strength)
        for kind in ("model", "gray", "truth"):
            found = measured(getattr(figures, kind))
            assert found == pytest.approx(measured(getattr(expected, kind)), rel=1e-4, abs=1e-4)


def test_evaluate_of_gray_pictures_is_a_data_error(models, pictures):
    for path in pictures.iterdir():
        Image.open(path).convert("L").save(path)
    samples = predict_samples([pictures], load(models.tinted, "cpu", threads=1))
    with pytest.raises(DataError, match="gray"):
        evaluate(samples)


def test_strength_for_is_independent_of_batches(mixed, monkeypatch):
    expected = strength_for(mixed, 0.1)
    monkeypatch.setattr(trainer.evaluate, "_BATCH_PIXELS", 1)
    together = sorted(mixed, key=lambda sample: sample.truth.shape)
    assert strength_for(together, 0.1) == pytest.approx(expected, abs=0.005)
    share = evaluate(mixed, expected).colorfulness_share
    assert share == pytest.approx(0.1, rel=0.02), "the mean is over pictures, not over shapes"


def test_strength_for_a_share_reaches_it(tinted):
    strength = strength_for(tinted, 0.2)
    assert evaluate(tinted, strength).colorfulness_share == pytest.approx(0.2, rel=0.02)


def test_mean_b_follows_the_stand_in_model(tinted):
    """The stand-in predicts b* = 30 - 0.3 L*, so mean b* follows mean L* between 0 and 30."""
    lightness = np.mean([sample.lightness.rows(0, 64).mean() for sample in tinted])
    assert evaluate(tinted).model.mean_b == pytest.approx(30 - 0.3 * lightness, abs=3)


@pytest.mark.parametrize(("width", "height"), [(10, 40), (40, 10), (3, 3)])
def test_evaluate_leaves_out_a_picture_too_small_for_ssim(models, picture, tmp_path, width, height):
    picture(0, width, height).save(tmp_path / "small.png")
    result = invoke(models.gray, tmp_path)
    assert result.exit_code == 1
    assert result.stderr == (
        f"left out small.png: smaller than 11 pixels\nError: {tmp_path}: no usable pictures\n"
    )


def test_evaluate_of_the_smallest_picture_for_ssim_works(models, picture, tmp_path):
    picture(0, 11, 11).save(tmp_path / "small.png")
    assert evaluate(predict_samples([tmp_path], load(models.gray, "cpu", threads=1))).pictures == 1


def test_evaluate_leaves_out_unreadable_pictures_and_names_them(models, pictures, tmp_path):
    expected = evaluate(predict_samples([pictures], load(models.tinted, "cpu", threads=1)), shares=SHARES)
    whole = (pictures / "1.png").read_bytes()
    for name, content in (("bad.png", b"not a picture"), ("cut.png", whole[: len(whole) // 2])):
        (pictures / name).write_bytes(content)
    result = invoke(models.tinted, pictures, "--json", "--no-realism")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == json.loads(json.dumps(expected.to_json()))
    assert result.stderr == (
        "left out bad.png: unreadable (UnidentifiedImageError)\nleft out cut.png: unreadable (OSError)\n"
    )


def test_predict_samples_names_a_folder_without_pictures(models, tmp_path):
    with pytest.raises(DataError, match="no usable pictures"):
        predict_samples([tmp_path], load(models.gray, "cpu", threads=1))


def test_predict_samples_keeps_order_and_reports_progress(models, pictures, picture):
    calls = []
    model = load(models.gray, "cpu", threads=1)
    samples = predict_samples([pictures, pictures / "2.png"], model, progress=lambda: calls.append(1))
    assert [sample.name for sample in samples] == ["0.png", "1.png", "2.png", "3.png", "2.png"]
    for sample, seed in zip(samples, (0, 1, 2, 3, 2), strict=True):
        np.testing.assert_array_equal(sample.truth, np.asarray(picture(seed, 48, 64)))
    assert len(calls) == 5


def test_predict_samples_uses_the_requested_size(models, pictures):
    model = load(models.gray, "cpu", threads=1)
    own, asked = (predict_samples([pictures], model, size)[0].ab.shape for size in (None, 32))
    assert own == (2, 80 // 2, 64 // 2)  # the stand-in halves the sides; 85 is rounded to a multiple of 16
    assert asked == (2, 48 // 2, 32 // 2)


# Prepared folders and CIFAR-10.


def test_prepared_folder_scores_as_its_pictures_in_files(models, prepared, tmp_path):
    crops = np.load(prepared / CROPS_NAME)
    for number, crop in enumerate(crops):
        Image.fromarray(crop).save(tmp_path / f"{number:02d}.png")
    model = load(models.tinted, "cpu", threads=1)
    samples = predict_samples([prepared], model)
    assert len(samples) == len(crops) == 16
    for sample, crop in zip(samples, crops, strict=True):
        np.testing.assert_array_equal(sample.truth, crop)
    assert len({sample.name for sample in samples}) == 16
    assert evaluate(samples) == evaluate(predict_samples([tmp_path], model))


def test_predict_samples_names_a_damaged_prepared_folder(models, tmp_path):
    (tmp_path / MANIFEST_NAME).write_text("{}")
    with pytest.raises(DataError, match=str(tmp_path)):
        predict_samples([tmp_path], load(models.gray, "cpu", threads=1))


@pytest.fixture
def archive(tmp_path, picture, monkeypatch) -> Path:
    """The binary version of CIFAR-10, with five pictures in a batch."""
    monkeypatch.setattr(cifar10, "_PICTURES", 5)
    path = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for number, name in enumerate(name for names in SPLITS.values() for name in names):
            crops = [np.asarray(picture(10 * number + seed, 32, 32)) for seed in range(5)]
            data = b"".join(b"\x01" + crop.transpose(2, 0, 1).tobytes() for crop in crops)
            entry = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def test_cifar10_archive_is_measured_by_its_test_split(models, archive, picture, tmp_path):
    prepare_cifar10(archive, tmp_path / "out")
    model = load(models.tinted, "cpu", threads=1)
    samples = predict_samples([archive], model)
    assert len(samples) == 5
    for seed, sample in enumerate(samples):
        np.testing.assert_array_equal(sample.truth, np.asarray(picture(50 + seed, 32, 32)))
    assert evaluate(samples) == evaluate(predict_samples([tmp_path / "out" / "test"], model))


def test_predict_samples_mixes_sources_of_all_kinds(models, archive, prepared, pictures):
    model = load(models.tinted, "cpu", threads=1)
    samples = predict_samples([pictures, archive, prepared], model)
    assert [sample.truth.shape[:2] for sample in samples] == [(64, 48)] * 4 + [(32, 32)] * 5 + [(48, 48)] * 16
    assert evaluate(samples).pictures == 25


def test_command_names_a_damaged_archive_in_one_line(models, archive):
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    assert_one_line_error(invoke(models.gray, archive), archive, "_batch")


# Checkpoints.


@pytest.fixture
def trained(small_export):
    """A generator in all its file formats."""
    return small_export


def test_checkpoint_predictor_uses_the_last_training_size(trained):
    info = load_predictor(trained.checkpoint).info
    assert (info.working_size, info.multiple_of) == (32, 4)
    assert info.name == "a-run"
    assert info.config_hash == trained.config.hash


def test_checkpoint_predictor_uses_the_averaged_generator(trained):
    lightness = 100 * np.random.default_rng(0).random((3, 1, 16, 24), np.float32)
    found = load_predictor(trained.checkpoint).predict(lightness)
    with torch.no_grad():
        expected = load_generator(trained.checkpoint)[0](torch.from_numpy(lightness)).numpy()
    assert found.dtype == np.float32
    assert found.shape == (3, 2, 16, 24)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_checkpoint_weights_and_onnx_score_the_same(trained, mixed, tmp_path):
    """Except for rounding: the latter two store weights as fp16."""
    found = [
        evaluate(predict_samples([tmp_path / "mixed"], load_predictor(path)))
        for path in (trained.checkpoint, trained.weights, trained.onnx)
    ]
    assert found[0].model.colorfulness > 10, "colors that matter"
    assert found[0].model != evaluate(mixed).model
    for other in found[1:]:
        assert measured(other.model) == pytest.approx(measured(found[0].model), rel=5e-3, abs=0.02)
        assert (other.gray, other.truth) == (found[0].gray, found[0].truth)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".onnx"])
@pytest.mark.parametrize("kind", ["missing", "damaged", "folder"])
def test_command_reports_an_unreadable_model_in_one_line(pictures, tmp_path, suffix, kind):
    path = tmp_path / f"model{suffix}"
    if kind == "damaged":
        path.write_bytes(b"damaged")
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(ColorizeError if suffix == ".onnx" else CheckpointError):
        load_predictor(path)
    assert_one_line_error(invoke(path, pictures))


# Sheets.


def test_sheet_has_three_rows_at_twice_the_size(tinted, tmp_path):
    write_sheet(tinted, 1.0, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (8 * 96, 3 * 96)


@pytest.mark.parametrize(("short", "side"), [(32, 64), (96, 192), (200, 192), (500, 192)])
def test_sheet_scales_pictures_to_a_limited_size(models, picture, tmp_path, short, side):
    picture(0, short, short + 30).save(tmp_path / "picture.png")
    samples = predict_samples([tmp_path / "picture.png"], load(models.gray, "cpu", threads=1))
    write_sheet(samples, 1.0, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (8 * side, 3 * side)


def test_sheet_shows_gray_colored_and_true_centers(tinted, tmp_path):
    write_sheet(tinted, 0.5, tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    for place, sample in enumerate(tinted):
        for row, picture in enumerate((sample.render(0.0), sample.render(0.5), sample.truth)):
            tile = sheet[96 * row : 96 * (row + 1), 96 * place : 96 * (place + 1)]
            middle = picture[8:56]  # of 64 rows and 48 columns
            np.testing.assert_array_equal(tile, middle.repeat(2, axis=0).repeat(2, axis=1))


@pytest.fixture
def numbered(tinted) -> Callable[[int], list[Sample]]:
    """Samples whose red channel contains their index."""

    def make(count: int) -> list[Sample]:
        truths = (np.full((16, 16, 3), (number, 0, 0), np.uint8) for number in range(count))
        return [replace(tinted[0], truth=truth) for truth in truths]

    return make


def numbers_on(path: Path, side: int, columns: int) -> list[int]:
    sheet = np.asarray(Image.open(path))
    assert sheet.shape[1] == columns * side
    bands = sheet.reshape(-1, 3, side, columns, side, 3)
    return bands[:, 2, side // 2, :, side // 2, 0].ravel().tolist()


@pytest.mark.parametrize(
    ("count", "most", "shown", "columns"),
    [
        (3, 24, [0, 1, 2], 8),
        (10, 5, [0, 2, 4, 6, 8], 8),
        (10, 4, [0, 2, 5, 7], 8),
        (10, 10, list(range(10)), 8),
        (10, 1, [0], 8),
        (72, None, list(range(0, 72, 3)), 8),
        (60, 30, list(range(0, 60, 2)), 20),
        (25, 100, list(range(25)), 20),
    ],
)
def test_sheet_spreads_its_pictures_over_the_samples(numbered, tmp_path, count, most, shown, columns):
    more = {} if most is None else {"pictures": most}
    write_sheet(numbered(count), 1.0, tmp_path / "sheet.png", **more)
    numbers = numbers_on(tmp_path / "sheet.png", 32, columns)
    assert numbers[: len(shown)] == shown
    assert not any(numbers[len(shown) :])
    assert len(numbers) == -(-len(shown) // columns) * columns


# Gains at shares of the true colorfulness.


def test_gain_at_a_share_is_measured_at_the_strength_that_reaches_it(mixed):
    shares = (0.1, 0.3)
    figures = evaluate(mixed, shares=shares)
    assert [at.share for at in figures.gains] == list(shares)
    for at in figures.gains:
        there = evaluate(mixed, at.strength)
        assert there.colorfulness_share == pytest.approx(at.share, rel=0.01)
        assert at.gain == pytest.approx(there.gain, abs=1e-6)
    assert figures.gains[0].strength < figures.gains[1].strength
    assert evaluate(mixed).gains == ()


def test_gains_at_shares_are_independent_of_strength(mixed):
    faint, strong = (evaluate(mixed, strength, (0.2,)).gains for strength in (0.3, 2.0))
    assert faint == strong


# The command.


def test_json_holds_every_figure_by_name(tinted):
    figures = evaluate(tinted, 0.5, (0.2, 0.4))
    values = figures.to_json()
    assert json.loads(json.dumps(values)) == values | {"gains": list(values["gains"])}
    assert values.keys() == {
        "pictures",
        "strength",
        "model",
        "gray",
        "truth",
        "gain",
        "gains",
        "colorfulness_share",
    }
    names = {"psnr", "ssim", "mae_rgb", "mae_ab", "accuracy_2", "accuracy_5", "ciede2000", "colorfulness"}
    names |= {"colorfulness_gap", "auc", "auc_balanced", "jensen_shannon", "mean_a", "mean_b"}
    names |= {"kid", "true_class"}
    assert values["model"].keys() == values["gray"].keys() == names
    assert values["truth"].keys() == {"colorfulness", "mean_a", "mean_b", "true_class"}
    assert values["gain"] == figures.gain
    assert values["colorfulness_share"] == figures.colorfulness_share
    assert (
        Evaluation(
            values["pictures"],
            values["strength"],
            Scores(**values["model"]),
            Scores(**values["gray"]),
            Truth(**values["truth"]),
            tuple(GainAtShare(**at) for at in values["gains"]),
        )
        == figures
    )
    for kind in ("model", "gray", "truth"):
        assert {name for name, value in values[kind].items() if value is None} <= {"kid", "true_class"}
        assert all(value is None or math.isfinite(value) for value in values[kind].values())


def test_rows_hold_every_measured_figure(tinted):
    figures = evaluate(tinted, 1.0, (0.2, 0.4))
    rows = {name: rest for name, *rest in figures.rows()}
    gains = ["gain at 20% colorfulness", "gain at 40% colorfulness"]
    measured = [field.name for field in fields(Scores) if field.name not in {"kid", "true_class"}]
    assert list(rows) == measured + gains
    assert rows["psnr"] == [f"{figures.model.psnr:.3f}", f"{figures.gray.psnr:.3f}", ""]
    for name in ("colorfulness", "mean_a", "mean_b"):
        expected = [getattr(kind, name) for kind in (figures.model, figures.gray, figures.truth)]
        assert rows[name] == [f"{value:.3f}" for value in expected]
    assert [rows[name] for name in gains] == [[f"{at.gain:+.3f}", "", ""] for at in figures.gains]


SHARES = (0.65, 0.8, 0.97)


def as_printed(figures: Evaluation) -> object:
    return json.loads(json.dumps(figures.to_json()))


def test_command_prints_the_figures(models, pictures, tinted):
    result = invoke(models.tinted, pictures, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == as_printed(evaluate(tinted, shares=SHARES))
    table = invoke(models.tinted, pictures)
    assert table.exit_code == 0, table.output
    words = [set(line.replace("│", " ").split()) for line in table.stdout.splitlines()]
    for name, *figures in evaluate(tinted, shares=SHARES).rows():
        row = {*name.split(), *filter(None, figures)}
        assert any(row <= line for line in words), row
    assert "realism" not in table.stderr
    assert not {"kid", "true_class"} & set(table.stdout.split())
    assert "4 pictures" in table.stdout
    assert {"model", "gray", "truth"} <= set(table.stdout.split())
    assert f"{evaluate(tinted).gain:+.3f} dB above gray" in table.stdout


def test_command_measures_checkpoints_and_prepared_folders(trained, prepared):
    result = invoke(trained.checkpoint, prepared, "--json")
    assert result.exit_code == 0, result.output
    expected = evaluate(predict_samples([prepared], load_predictor(trained.checkpoint)), shares=SHARES)
    assert json.loads(result.stdout) == as_printed(expected)


def test_command_takes_strength_or_colorfulness_and_size(models, pictures, tinted):
    at_strength = invoke(models.tinted, pictures, "--strength", "0.5", "--json")
    assert json.loads(at_strength.stdout) == as_printed(evaluate(tinted, 0.5, SHARES))
    at_share = invoke(models.tinted, pictures, "--at-colorfulness", "0.2", "--json")
    assert json.loads(at_share.stdout) == as_printed(evaluate(tinted, strength_for(tinted, 0.2), SHARES))
    smaller = predict_samples([pictures], load(models.tinted, "cpu", threads=1), 16)
    at_size = invoke(models.tinted, pictures, "--size", "16", "--json")
    assert json.loads(at_size.stdout) == as_printed(evaluate(smaller, shares=SHARES))
    assert evaluate(smaller) != evaluate(tinted)


def test_command_writes_a_sheet_of_its_samples(models, pictures, tinted, tmp_path):
    for options, count in (([], 24), (["--sheet-pictures", "2"], 2)):
        sheet, expected = tmp_path / "sheets" / f"{count}.png", tmp_path / f"expected-{count}.png"
        result = invoke(models.tinted, pictures, "--strength", "0.5", "--sheet", sheet, *options)
        assert result.exit_code == 0, result.output
        write_sheet(tinted, 0.5, expected, count)
        np.testing.assert_array_equal(np.asarray(Image.open(sheet)), np.asarray(Image.open(expected)))


def test_command_names_a_missing_source(models, tmp_path):
    assert_one_line_error(invoke(models.tinted, tmp_path / "nowhere"), "nowhere")


def test_gain_at_an_unreachable_share_is_none_and_not_in_the_table(models, pictures):
    figures = evaluate(predict_samples([pictures], load(models.gray, "cpu", threads=1)), shares=(0.65,))
    (at,) = figures.gains
    assert (at.strength, at.gain) == (None, None)
    assert not [row for row in figures.rows() if row[0].startswith("gain at")]


def test_strength_for_an_unreachable_share_is_a_data_error(models, pictures):
    samples = predict_samples([pictures], load(models.gray, "cpu", threads=1))
    with pytest.raises(DataError, match="too pale for 65%"):
        strength_for(samples, 0.65)

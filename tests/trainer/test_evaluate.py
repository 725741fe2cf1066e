import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from colorize_cli.model import load
from trainer.cli import main
from trainer.data.prepare import DataError
from trainer.evaluate import evaluate, predict_samples, strength_for, write_sheet


@pytest.fixture
def pictures(tmp_path, picture) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed in range(4):
        picture(seed, 48, 64).save(folder / f"{seed}.png")
    return folder


@pytest.fixture
def tinted(models, pictures):
    return predict_samples([pictures], load(models.tinted, "cpu", threads=1))


def test_a_grey_model_gains_nothing(models, pictures):
    figures = evaluate(predict_samples([pictures], load(models.grey, "cpu", threads=1)))
    assert figures.pictures == 4
    assert figures.gain == 0
    assert figures.colourfulness == pytest.approx(0, abs=1e-4)
    assert figures.psnr == figures.psnr_grey
    assert figures.mean_a == pytest.approx(0, abs=0.01)


def test_grey_baseline_is_the_truth_without_its_chroma(tinted):
    errors = [
        ((sample.render(0.0).astype(float) - sample.truth.astype(float)) / 255) ** 2 for sample in tinted
    ]
    expected = np.mean([-10 * np.log10(error.mean()) for error in errors])
    assert evaluate(tinted).psnr_grey == pytest.approx(expected, abs=1e-3)


def test_grey_pictures_cannot_be_measured(models, pictures):
    for path in pictures.iterdir():
        Image.open(path).convert("L").save(path)
    samples = predict_samples([pictures], load(models.tinted, "cpu", threads=1))
    with pytest.raises(DataError, match="grey"):
        evaluate(samples)


def test_strength_reaches_the_share_of_colourfulness(tinted):
    strength = strength_for(tinted, 0.2)
    assert evaluate(tinted, strength).colourfulness_share == pytest.approx(0.2, rel=0.02)


def test_means_are_those_of_the_model(tinted):
    """The stand-in says b* = 30 - 0.3 L*, so mean b* lies between 0 and 30 and follows it."""
    lightness = np.mean([sample.lightness.rows(0, 64).mean() for sample in tinted])
    assert evaluate(tinted).mean_b == pytest.approx(30 - 0.3 * lightness, abs=3)


def test_sheet_has_three_rows_of_pictures(tinted, tmp_path):
    write_sheet(tinted, 1.0, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (8 * 192, 3 * 192)


def test_an_unreadable_picture_is_named(models, pictures):
    (pictures / "bad.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"bad\.png"):
        predict_samples([pictures], load(models.grey, "cpu", threads=1))


def test_a_folder_without_pictures_is_named(models, tmp_path):
    with pytest.raises(DataError, match="no pictures"):
        predict_samples([tmp_path], load(models.grey, "cpu", threads=1))


def test_command_prints_the_figures(models, pictures, tinted):
    result = CliRunner().invoke(main, ["evaluate", str(models.tinted), str(pictures), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == pytest.approx(asdict(evaluate(tinted)))
    table = CliRunner().invoke(main, ["evaluate", str(models.tinted), str(pictures)])
    assert "colourfulness_share" in table.stdout


def test_command_names_what_is_missing(models, tmp_path):
    result = CliRunner().invoke(main, ["evaluate", str(models.tinted), str(tmp_path / "nowhere")])
    assert result.exit_code == 1
    assert "nowhere" in result.output

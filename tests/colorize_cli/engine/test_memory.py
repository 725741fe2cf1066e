"""A GPU with too little memory, simulated by a fake session."""

import numpy as np
import pytest
from PIL import Image

from colorize_cli.cli.progress import to_json
from colorize_cli.color import lab, lightness
from colorize_cli.core import formats
from colorize_cli.core.jobs import Status
from colorize_cli.core.settings import Settings
from colorize_cli.engine import ENGINES
from colorize_cli.inference import batch_size, model
from colorize_cli.storage import discovery
from tests.helpers.sessions import FakeSession, on_gpus
from tests.helpers.videos import Recipe, make


@pytest.fixture
def run(models, monkeypatch):
    """Colorize with a GPU whose memory suffices for a given number of pixels."""

    monkeypatch.setattr(batch_size, "batch_size", lambda *_: 8)

    def run(source, output, pixels, **changes):
        network = on_gpus(models, FakeSession(pixels))
        monkeypatch.setattr(model, "load", lambda *_: network)
        plan = discovery.plan([source], output, formats.endings())
        return list(ENGINES["local"](plan, Settings(device="cuda", **changes), print))

    return run


def assert_colored(outcome):
    with Image.open(outcome.job.source) as before, Image.open(outcome.job.destination) as after:
        levels, rgb = np.asarray(before.convert("L")), np.asarray(after)
    assert np.ptp(rgb.astype(int), axis=-1).mean() > 3
    if outcome.job.source.suffix == ".png":
        assert np.abs(lab.srgb_to_lab(rgb / np.float32(255))[..., 0] - lightness.GRAY8[levels]).mean() < 0.3


def test_gpu_out_of_memory_halves_batches_first(run, make_folder, tmp_path):
    outcomes = run(make_folder(tmp_path / "in", 8), tmp_path / "out", 2 * 64 * 96)
    assert [outcome.status for outcome in outcomes] == [Status.DONE] * 8
    assert {outcome.size for outcome in outcomes} == {None}
    for outcome in outcomes:
        assert_colored(outcome)


def test_gpu_out_of_memory_reduces_size_and_reports_it(run, make_folder, tmp_path):
    outcomes = run(make_folder(tmp_path / "in", 6), tmp_path / "out", 32 * 48)
    assert [outcome.status for outcome in outcomes] == [Status.DONE] * 6
    assert {outcome.size for outcome in outcomes} == {32}
    assert '"size": 32' in to_json(outcomes[0])
    for outcome in outcomes:
        assert_colored(outcome)


def test_gpu_out_of_memory_at_any_size_fails_without_output(run, make_folder, tmp_path):
    outcomes = run(make_folder(tmp_path / "in", 3), tmp_path / "out", 10)
    assert [outcome.status for outcome in outcomes] == [Status.FAILED] * 3
    assert all("out of memory" in (outcome.reason or "") for outcome in outcomes)
    assert not [path for path in (tmp_path / "out").rglob("*.*") if path.suffix in (".png", ".jpg")]


def test_gpu_out_of_memory_fails_a_video(run, tmp_path):
    (tmp_path / "in").mkdir()
    make(tmp_path / "in" / "a.mkv", Recipe())
    (outcome,) = run(tmp_path / "in", tmp_path / "out", 10)
    assert outcome.status is Status.FAILED
    assert "out of memory" in (outcome.reason or "")
    assert not (tmp_path / "out" / "a.mkv").exists()

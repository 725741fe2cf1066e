"""The guarantees of every engine."""

import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from colorize_cli.core import formats, settings
from colorize_cli.core.errors import ModelError
from colorize_cli.core.jobs import Outcome, Plan, Status
from colorize_cli.core.settings import Settings
from colorize_cli.engine import ENGINES
from colorize_cli.storage import discovery


@pytest.fixture(
    params=[pytest.param(name, marks=pytest.mark.heavy if name == "ray" else ()) for name in ENGINES]
)
def engine(request):
    if request.param == "ray":
        request.getfixturevalue("cluster")
    return ENGINES[request.param]


def test_engines_equal_those_of_the_settings():
    assert tuple(ENGINES) == settings.ENGINES


def settings_for(path: Path, **changes) -> Settings:
    return Settings(model=path, device="cpu", **{"workers": 2, **changes})


def colorize(engine, source: Path, output: Path, settings: Settings) -> list[Outcome]:
    return list(engine(discovery.plan([source], output, formats.endings()), settings, print))


def pixels(folder: Path) -> dict[str, np.ndarray]:
    found = {}
    for path in sorted(folder.rglob("[!.]*.*")):
        with Image.open(path) as image:
            found[str(path.relative_to(folder))] = np.asarray(image).astype(int)
    return found


def test_pixels_are_independent_of_batches_and_workers(engine, models, make_folder, tmp_path):
    source = make_folder(tmp_path / "in", 30)
    results = []
    for batch_size, workers in ((1, 1), (16, 1), (1, 4), (16, 4)):
        output = tmp_path / f"{batch_size}-{workers}"
        settings = settings_for(models.tinted, batch_size=batch_size, workers=workers)
        assert all(o.status is Status.DONE for o in colorize(engine, source, output, settings))
        results.append(pixels(output))
    assert len(results[0]) == 30
    for result in results[1:]:
        assert result.keys() == results[0].keys()
        for name, picture in result.items():
            assert np.abs(picture - results[0][name]).max() <= 1


def test_outcomes_are_one_per_job_with_timings(engine, models, make_folder, tmp_path):
    source = make_folder(tmp_path / "in", 6)
    outcomes = colorize(engine, source, tmp_path / "out", settings_for(models.gray))
    assert len({outcome.job for outcome in outcomes}) == len(outcomes) == 6
    for outcome in outcomes:
        assert {"decode", "infer", "compose", "encode"} <= outcome.seconds.keys()


def test_existing_outputs_are_skipped_without_overwrite(engine, models, make_folder, tmp_path):
    source, output = make_folder(tmp_path / "in", 4), tmp_path / "out"
    output.mkdir()
    (output / "0000.png").write_bytes(b"mine")
    outcomes = colorize(engine, source, output, settings_for(models.gray))
    assert sorted(o.status.value for o in outcomes) == ["done"] * 3 + ["skipped"]
    assert (output / "0000.png").read_bytes() == b"mine"
    outcomes = colorize(engine, source, output, settings_for(models.gray, overwrite=True))
    assert {o.status for o in outcomes} == {Status.DONE}
    assert (output / "0000.png").read_bytes() != b"mine"


def test_bad_files_fail_alone(engine, models, make_folder, tmp_path):
    source = make_folder(tmp_path / "in", 8)
    (source / "empty.jpg").touch()
    (source / "text.jpg").write_text("no picture")
    (source / "cut.png").write_bytes((source / "0000.png").read_bytes()[:3000])
    outcomes = colorize(engine, source, tmp_path / "out", settings_for(models.gray))
    failed = {o.job.source.name: o.reason for o in outcomes if o.status is Status.FAILED}
    assert failed.keys() == {"empty.jpg", "text.jpg", "cut.png"}
    assert all(failed.values())
    assert len(pixels(tmp_path / "out")) == 8


def test_file_of_an_unknown_kind_fails(engine, models, tmp_path):
    path = tmp_path / "a.xyz"
    path.write_bytes(b"x")
    (outcome,) = colorize(engine, path, tmp_path / "out", settings_for(models.gray))
    assert outcome.status is Status.FAILED
    assert ".xyz" in outcome.reason


@pytest.fixture
def mixed(make_folder, tmp_path) -> Path:
    """Two gray pictures, and a JPEG and an animated GIF in color."""
    from skimage import data

    source = make_folder(tmp_path / "in", 2)
    cat = Image.fromarray(data.chelsea()).resize((90, 60))
    cat.save(source / "cat.jpg", quality=80)
    cat.save(source / "cat.gif", save_all=True, append_images=[cat.rotate(180)], duration=70)
    return source


def test_pictures_in_color_are_skipped_with_a_reason(engine, models, mixed, tmp_path):
    outcomes = colorize(engine, mixed, tmp_path / "out", settings_for(models.tinted))
    skipped = {o.job.source.name: o.reason for o in outcomes if o.status is Status.SKIPPED}
    assert skipped == dict.fromkeys(["cat.jpg", "cat.gif"], "already in color")
    assert pixels(tmp_path / "out").keys() == {"0000.png", "sub/0001.jpg"}


def test_pictures_in_color_are_copied_on_request(engine, models, mixed, tmp_path):
    output, settings = tmp_path / "out", settings_for(models.tinted, if_colored="copy")
    assert {o.status for o in colorize(engine, mixed, output, settings)} == {Status.DONE}
    assert (output / "cat.jpg").read_bytes() == (mixed / "cat.jpg").read_bytes()
    with Image.open(mixed / "cat.gif") as before, Image.open(output / "cat.gif.png") as after:
        assert after.n_frames == before.n_frames == 2
        for frame in range(2):
            before.seek(frame)
            after.seek(frame)
            np.testing.assert_array_equal(np.asarray(after.convert("RGB")), np.asarray(before.convert("RGB")))
            assert after.info["duration"] == 70
    assert {o.status for o in colorize(engine, mixed, output, settings)} == {Status.SKIPPED}


def test_pictures_in_color_are_recolored_on_request(engine, models, mixed, tmp_path):
    output = tmp_path / "out"
    colorize(engine, mixed, output, settings_for(models.tinted, if_colored="copy"))
    outcomes = colorize(engine, mixed, output, settings_for(models.gray, if_colored="recolor"))
    assert {o.status for o in outcomes} == {Status.DONE}
    for name in ("cat.jpg", "cat.gif.png"):
        with Image.open(output / name) as image:
            red, green, blue = (np.asarray(band).astype(int) for band in image.convert("RGB").split())
        assert max(np.abs(red - green).max(), np.abs(blue - green).max()) <= 1


def test_max_pixels_fails_larger_pictures(engine, models, make_folder, tmp_path):
    source = make_folder(tmp_path / "in", 2)
    outcomes = colorize(engine, source, tmp_path / "out", settings_for(models.gray, max_pixels=100))
    assert {o.status for o in outcomes} == {Status.FAILED}


def test_empty_plan_needs_no_model(engine, tmp_path):
    assert list(engine(Plan((), (), tmp_path), settings_for(tmp_path / "absent.onnx"), print)) == []


def test_missing_model_is_raised(engine, make_folder, tmp_path):
    with pytest.raises(ModelError):
        colorize(
            engine, make_folder(tmp_path / "in", 2), tmp_path / "out", settings_for(tmp_path / "absent.onnx")
        )


def test_run_closed_early_leaves_no_thread_or_partial_file(engine, models, make_folder, tmp_path):
    source, output = make_folder(tmp_path / "in", 40), tmp_path / "out"
    before = set(threading.enumerate())
    plan = discovery.plan([source], output, formats.endings())
    outcomes = engine(plan, settings_for(models.tinted), print)
    next(outcomes)
    outcomes.close()
    assert set(threading.enumerate()) == before
    assert [path.name for path in output.rglob(".*") if ".jsonl" not in path.name] == [".colorize"]
    assert 0 < len(pixels(output)) < 40


def test_auto_device_is_announced_in_one_line(engine, models, make_folder, tmp_path):
    lines: list[str] = []
    plan = discovery.plan([make_folder(tmp_path / "in", 2)], tmp_path / "out", formats.endings())
    list(engine(plan, Settings(model=models.gray, device="auto"), lines.append))
    assert len(lines) == 1
    assert lines[0].startswith("device: ")


def test_output_directory_that_disappears_is_not_recreated(engine, models, make_folder, tmp_path):
    source, output = make_folder(tmp_path / "in", 40), tmp_path / "out"
    plan = discovery.plan([source], output, formats.endings())
    outcomes = engine(plan, settings_for(models.tinted), print)
    ended = [next(outcomes)]
    output.rename(tmp_path / "moved")
    ended += outcomes
    assert not output.exists()
    reasons = {o.reason for o in ended if o.status is Status.FAILED}
    assert reasons
    assert all(
        "out has disappeared during the run" in reason or "No such file" in reason for reason in reasons
    )
    done = sum(o.status is Status.DONE for o in ended)
    assert done == len(pixels(tmp_path / "moved"))

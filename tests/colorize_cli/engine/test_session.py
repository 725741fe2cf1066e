"""The session and its calls of the model."""

import ctypes
import errno
import fcntl
import os
from pathlib import Path

import pytest
from PIL import Image

from colorize_cli.core import formats
from colorize_cli.core.jobs import Job, Plan, Status
from colorize_cli.core.settings import Settings
from colorize_cli.engine import session
from colorize_cli.engine.session import Session
from colorize_cli.guidance import Guidance
from colorize_cli.storage import discovery
from tests.helpers.cli import contents, invoke
from tests.helpers.pictures import gray
from tests.helpers.videos import Recipe, make


@pytest.mark.parametrize(
    ("batch_size", "cores", "parallel"),
    [
        (None, 1, 1),
        (None, 2, 2),
        (None, 8, 8),
        (None, 9, 4),
        (None, 12, 6),
        (None, 64, 8),
        (2, 8, 4),
        (8, 8, 1),
        (100, 8, 1),
    ],
)
def test_open_for_many_pictures_divides_cores_and_memory(models, tmp_path, batch_size, cores, parallel):
    settings = Settings(model=models.tinted, device="cpu", batch_size=batch_size)
    for many in (True, False):
        opened = Session(tmp_path, settings, Guidance(), cores=cores)
        network = opened.open(many=many)
        assert network.parallel == (parallel if many else 1)
        assert (batch_size or network.batch_size) * network.parallel <= max(8, batch_size or 1)
        assert opened.open() is network
        opened.close()


@pytest.mark.parametrize(
    ("pictures", "videos", "expected"),
    [(1, False, False), (4, False, True), (9, False, True), (9, True, False)],
)
def test_are_many_is_false_for_few_pictures_and_videos(monkeypatch, pictures, videos, expected):
    monkeypatch.setattr(session, "available_cores", lambda: 4)
    assert session.are_many(pictures, videos=videos) is expected


def test_run_opens_the_session_by_the_work_to_do(models, make_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "available_cores", lambda: 3)
    asked = []
    open_ = Session.open
    monkeypatch.setattr(
        Session, "open", lambda session_, **how: (asked.append(how), open_(session_, **how))[1]
    )
    source, out = make_folder(tmp_path / "in", 3), tmp_path / "out"
    settings = Settings(model=models.tinted, device="cpu", workers=1)
    for many in (True, False):
        assert len(list(session.run(discovery.plan([source], out, formats.endings()), settings, print))) == 3
        assert asked[0] == {"many": many}
        asked.clear()
        for path in sorted(out.glob("[!.]*.*"))[:1]:  # so the next run has work
            path.unlink()


def test_share_that_cannot_flush_files_gets_all_outputs(models, make_folder, tmp_path, monkeypatch):
    def fsync(_: int) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "fsync", fsync)
    folder = make_folder(tmp_path / "in", 2)
    make(folder / "a.mkv", Recipe())
    for expected in ("3 done, 0 skipped, 0 failed", "0 done, 3 skipped (3 up to date), 0 failed"):
        result = invoke(folder, tmp_path / "out", "--model", models.tinted, "--device", "cpu")
        assert result.exit_code == 0
        assert result.stderr.splitlines()[-1] == expected
    assert contents(tmp_path / "out").keys() == contents(folder).keys()


@pytest.mark.parametrize("name", ["fsync", "close"])
def test_manifest_that_the_disk_may_have_lost_is_reported(models, make_folder, tmp_path, monkeypatch, name):
    real = getattr(os, name)

    def failing(file: int) -> None:
        is_manifest = fcntl.fcntl(file, fcntl.F_GETFL) & os.O_APPEND
        real(file)
        if is_manifest:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, name, failing)
    folder, output = make_folder(tmp_path / "in", 2), tmp_path / "out"
    result = invoke(folder, output, "--model", models.tinted, "--device", "cpu")
    assert result.stderr.splitlines()[-2:] == [
        "the next run may not recognize all outputs of this one:"
        f" cannot write below {output}/.colorize: Input/output error",
        "2 done, 0 skipped, 0 failed",
    ]


def exchange(one: Path, other: Path) -> None:
    """Exchange two files in one step, so that the run cannot make the first again in between."""
    here, atomically = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of renameat2(2)
    libc = ctypes.CDLL(None, use_errno=True)
    failed = libc.renameat2(here, os.fsencode(one), here, os.fsencode(other), atomically)
    assert not failed, os.strerror(ctypes.get_errno())


@pytest.mark.parametrize("exchanged", ["sub", "."])
def test_output_folder_exchanged_for_a_link_in_mid_run_gets_nothing(models, make_folder, tmp_path, exchanged):
    """Neither files nor directories are written outside of the output directory."""
    make_folder(tmp_path / "in" / "sub" / "a", 4)
    make_folder(tmp_path / "in" / "sub" / "b", 4)
    make(tmp_path / "in" / "sub" / "c.mkv", Recipe(frames=4))
    output, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    settings = Settings(model=models.tinted, device="cpu", workers=1)
    outcomes = session.run(discovery.plan([tmp_path / "in"], output, formats.endings()), settings, print)
    first = next(outcomes)
    elsewhere.mkdir()
    (tmp_path / "moved").symlink_to(elsewhere)
    exchange(output / exchanged, tmp_path / "moved")
    rest = list(outcomes)
    assert first.status is Status.DONE
    assert rest[-1].status is Status.FAILED
    assert "was exchanged during the run, and is now" in rest[-1].reason
    assert list(elsewhere.iterdir()) == []
    for outcome in rest:
        assert (
            outcome.status is Status.FAILED
            or (tmp_path / "moved" / outcome.job.destination.relative_to(output / exchanged)).exists()
        )


@pytest.mark.parametrize("suffix", [".png", ".mkv"])
def test_output_that_turns_out_to_be_the_input_is_not_replaced(models, tmp_path, suffix):
    """As on a file system that folds names, if planning did not find out."""
    output, source = tmp_path / f"a{suffix}", tmp_path / f"A{suffix}"
    if suffix == ".mkv":
        make(output, Recipe(frames=4))
    else:
        Image.fromarray(gray()).save(output)
    source.symlink_to(output)
    before = output.read_bytes()
    plan = Plan((Job(source, output),), (), None)
    settings = Settings(model=models.tinted, device="cpu", overwrite=True)
    (outcome,) = session.run(plan, settings, print)
    assert (outcome.status, outcome.reason) == (Status.FAILED, f"{output} is the input {source} itself")
    assert output.read_bytes() == before

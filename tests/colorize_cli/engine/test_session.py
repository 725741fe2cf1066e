"""The session and its calls of the model."""

import errno
import fcntl
import os

import pytest

from colorize_cli.core import formats
from colorize_cli.core.settings import Settings
from colorize_cli.engine import session
from colorize_cli.engine.session import Session
from colorize_cli.guidance import Guidance
from colorize_cli.storage import discovery
from tests.helpers.cli import contents, invoke
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


def test_manifest_that_the_disk_may_have_lost_is_reported(models, make_folder, tmp_path, monkeypatch):
    def fsync(file: int) -> None:
        if fcntl.fcntl(file, fcntl.F_GETFL) & os.O_APPEND:  # the manifest
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    folder, output = make_folder(tmp_path / "in", 2), tmp_path / "out"
    result = invoke(folder, output, "--model", models.tinted, "--device", "cpu")
    assert result.stderr.splitlines()[-2:] == [
        "the next run may not recognize all outputs of this one:"
        f" cannot write below {output}/.colorize: Input/output error",
        "2 done, 0 skipped, 0 failed",
    ]

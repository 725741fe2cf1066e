import errno
import fcntl
import os
import subprocess
import sys

import pytest

from colorize_cli.storage import atomic


def temporaries(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith(".colorize-"))


def test_writing_shows_the_file_when_complete(tmp_path):
    target = tmp_path / "a.png"
    with atomic.writing(target) as file:
        file.write(b"half")
        assert not target.exists()
        assert len(temporaries(tmp_path)) == 1
        atomic.sweep(tmp_path)  # does not remove files that are being written
        file.write(b" and half")
    assert target.read_bytes() == b"half and half"
    assert temporaries(tmp_path) == []


def test_writing_that_fails_leaves_nothing(tmp_path):
    target = tmp_path / "a.png"
    target.write_bytes(b"before")

    def fail() -> None:
        with atomic.writing(target) as file:
            file.write(b"after")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert target.read_bytes() == b"before"
    assert temporaries(tmp_path) == []


def test_writing_uses_temporary_names_of_one_length(tmp_path):
    names = []
    for stem in ("a", "b" * 250):
        with atomic.writing(tmp_path / f"{stem}.png"):
            names += temporaries(tmp_path)
    assert len({len(name) for name in names}) == 1


def test_sweep_removes_only_files_of_ended_processes_here(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()

    def name(host: str, process: int) -> str:
        return f".colorize-{host}-{process:010d}-000001.png"

    doomed = [name(atomic._HOST, dead.pid), name(atomic._HOST, os.getpid())]
    kept = [name(atomic._HOST, os.getppid()), name("00000000", dead.pid), ".colorize-mine.png", "a.png"]
    for each in doomed + kept:
        (tmp_path / each).touch()
    atomic.sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
    atomic.sweep(tmp_path / "absent")


def test_remove_prefixed_removes_files_of_one_process(tmp_path):
    mark = ".colorize-01234567-0000000042-"
    doomed, kept = [f"{mark}000001.png", f"{mark}000002.x"], [".colorize-01234567-0000000043-000001.png", "a"]
    for each in doomed + kept:
        (tmp_path / each).touch()
    atomic.remove_prefixed(tmp_path, mark)
    atomic.remove_prefixed(tmp_path / "absent", mark)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
    assert atomic.claim(".png").startswith(atomic.process_prefix())
    for no_mark in ("", "*", ".colorize-", f"{mark}*"):
        with pytest.raises(ValueError, match="not the prefix of a process"):
            atomic.remove_prefixed(tmp_path, no_mark)


def test_writing_passes_the_status_before_renaming(tmp_path):
    target = tmp_path / "a.png"
    seen = []

    def ready(status: os.stat_result) -> None:
        assert not target.exists()
        seen.append((status.st_size, status.st_mtime_ns))

    with atomic.writing(target, ready) as file:
        file.write(b"12345")
    assert seen == [(5, target.stat().st_mtime_ns)]


def test_writing_refused_by_the_callback_leaves_nothing(tmp_path):
    def refuse(status: os.stat_result) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError), atomic.writing(tmp_path / "a.png", refuse):
        pass
    assert list(tmp_path.iterdir()) == []


def test_abandon_leaves_nothing(tmp_path):
    def write() -> None:
        with atomic.writing(tmp_path / "a.png") as file:
            file.write(b"half")
            atomic.abandon()
            assert temporaries(tmp_path) == []

    with pytest.raises(FileNotFoundError):
        write()
    assert list(tmp_path.iterdir()) == []
    with atomic.writing(tmp_path / "b.png"):
        pass
    atomic.abandon()
    assert (tmp_path / "b.png").exists()


def test_claim_is_left_over_once_released():
    name = atomic.claim(".x")
    assert not atomic.is_left_over(name)
    atomic.release(name)
    assert atomic.is_left_over(name)


def by_handle(target) -> None:
    with atomic.writing(target) as file:
        file.write(b"content")


def by_path(target) -> None:
    with atomic.naming(target) as temporary:
        temporary.write_bytes(b"content")


@pytest.mark.parametrize("write", [by_handle, by_path])
def test_file_is_flushed_whole_by_a_handle_that_may_write(tmp_path, monkeypatch, write):
    seen = []

    def fsync(file: int) -> None:
        seen.append((fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY, os.fstat(file).st_size))

    monkeypatch.setattr(os, "fsync", fsync)
    write(tmp_path / "a.png")
    assert seen == [(True, len(b"content"))]


@pytest.mark.parametrize("write", [by_handle, by_path])
@pytest.mark.parametrize("name", ["EINVAL", "ENOTSUP", "EACCES", "EROFS", "EIO", "ENOSPC"])
def test_file_that_cannot_be_flushed_is_written_unless_the_disk_fails(tmp_path, monkeypatch, write, name):
    def fsync(_: int) -> None:
        raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))

    monkeypatch.setattr(os, "fsync", fsync)
    if name in ("EIO", "ENOSPC"):
        with pytest.raises(OSError, match=os.strerror(getattr(errno, name))):
            write(tmp_path / "a.png")
        assert list(tmp_path.iterdir()) == []
    else:
        write(tmp_path / "a.png")
        assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.png", b"content")]


FULL_DISK = """
import io, resource, signal, sys
from pathlib import Path
from PIL import Image
from colorize_cli.storage import atomic

picture, memory = Image.effect_noise((300, 200), 60), io.BytesIO()
picture.save(memory, sys.argv[2])
size = len(memory.getvalue())
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for missing in (1, 20, size // 2):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - missing, size))
    try:
        with atomic.writing(Path(sys.argv[1])) as file:
            picture.save(file, sys.argv[2])
    except OSError:
        continue
    sys.exit(f"{missing} bytes are missing and nothing was raised")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "BMP", "WEBP"])
def test_writing_to_a_full_disk_leaves_nothing(tmp_path, format_):
    target = tmp_path / "a.x"
    ended = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(target), format_], capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert list(tmp_path.iterdir()) == []

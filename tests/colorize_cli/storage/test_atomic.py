import contextlib
import errno
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

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


def test_sweep_removes_only_what_is_surely_left_over(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    old = time.time() - 2 * atomic._OLD

    def put(host: str, process: int, *, changed: float | None = None, random: str = f"{'0' * 16}-") -> Path:
        path = tmp_path / f".colorize-{host}-{process:010d}-{random}000001.{len(list(tmp_path.iterdir()))}"
        path.touch()
        if changed is not None:
            os.utime(path, (changed, changed))
        return path

    mine, elsewhere = atomic._HOST, "00000000"
    doomed = [
        put(mine, dead.pid),
        put(mine, os.getpid()),
        put(elsewhere, os.getpid(), changed=old),
        put(elsewhere, dead.pid, changed=old, random=""),  # of an earlier version
    ]
    locked = put(elsewhere, 1, changed=old)
    kept = [locked, put(mine, os.getppid(), changed=old), put(elsewhere, dead.pid)]
    for name in (".colorize-mine.png", "a.png"):
        kept.append(tmp_path / name)
        kept[-1].touch()
        os.utime(kept[-1], (old, old))
    with locked.open() as file:
        assert atomic.lock(file.fileno())
        atomic.sweep(tmp_path)
        atomic.sweep(tmp_path / "absent")
    assert not any(path.exists() for path in doomed)
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_claims_of_processes_have_random_parts_of_64_bits():
    line = [sys.executable, "-c", "from colorize_cli.storage import atomic; print(atomic._RANDOM)"]
    drawn = {subprocess.run(line, capture_output=True, text=True, check=True).stdout for _ in range(2)}
    assert len(drawn) == 2
    assert all(len(each.strip()) == 16 for each in drawn)
    assert atomic._RANDOM in atomic.claim(".png")


def test_lock_excludes_others_until_the_file_is_closed(tmp_path):
    (tmp_path / "a").touch()
    with (tmp_path / "a").open() as first, (tmp_path / "a").open() as second:
        assert atomic.lock(first.fileno())
        assert not atomic.lock(second.fileno())
        first.close()
        assert atomic.lock(second.fileno())


@pytest.mark.parametrize("name", ["ENOLCK", "EBADF"])
def test_lock_where_the_file_system_has_none_proves_nothing(tmp_path, monkeypatch, name):
    def flock(*_: object) -> None:
        raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))

    monkeypatch.setattr(fcntl, "flock", flock)
    assert atomic.lock(0) is None
    old = tmp_path / f".colorize-00000000-0000000001-{'0' * 16}-000001.png"
    old.touch()
    os.utime(old, (0, 0))
    atomic.sweep(tmp_path)
    assert old.exists()
    with atomic.directory(tmp_path, ".d") as made:
        assert made.is_dir()


def test_remove_prefixed_removes_files_of_one_process(tmp_path):
    mark, other = (f".colorize-01234567-00000000{number}-{'0' * 16}-" for number in (42, 43))
    doomed, kept = [f"{mark}000001.png", f"{mark}000002.x"], [f"{other}000001.png", "a"]
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


def test_directory_has_a_short_name_and_goes_when_its_process_has_gone(tmp_path):
    """Ray's sockets are in one, and their paths may have 107 bytes."""
    old = time.time() - 2 * atomic._OLD
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left, other = (
        tmp_path / f"x.colorize-{host}-{dead.pid:010d}-000000.d" for host in (atomic._HOST, "00000000")
    )
    for path in (left, other):
        path.mkdir()
        os.utime(path, (old, old))
    with other_lock(other), atomic.directory(tmp_path, ".d", "x") as made:
        assert len(made.name) == len(left.name) == 39
        assert sorted(tmp_path.iterdir()) == sorted([made, other])
    with atomic.directory(tmp_path, ".d", "x") as made:
        assert list(tmp_path.iterdir()) == [made]
    assert list(tmp_path.iterdir()) == []


@contextlib.contextmanager
def other_lock(path):
    file = os.open(path, os.O_RDONLY)
    try:
        assert atomic.lock(file)
        yield
    finally:
        os.close(file)

import itertools
import threading
import time
from pathlib import Path

import pytest

from colorize_cli.core.jobs import FileInfo, Job, LocalFiles
from colorize_cli.core.location import Url
from colorize_cli.storage import atomic
from colorize_cli.storage.filesystem import DIRECTORY, Fingerprint, SourceFingerprint
from colorize_cli.storage.manifest import Record, State
from colorize_cli.storage.manifest_remote import RemoteManifest
from colorize_cli.storage.remote import RemotePath, RemoteStorage

pytestmark = pytest.mark.usefixtures("environment")

PLACES = itertools.count()
SOURCE = SourceFingerprint(Fingerprint(3, 0, "v1"), "content")


@pytest.fixture
def root() -> RemotePath:
    return RemoteStorage().locate(Url(f"memory://manifest-{next(PLACES)}"))


def parts(root: RemotePath) -> list[str]:
    folder = root.below(DIRECTORY)
    return (
        [found.path for found in root.file_system.find(folder.path)]
        if root.file_system.info(folder.path)
        else []
    )


MADE = SourceFingerprint(Fingerprint(6), "digest")


def files(root: RemotePath, name: str, version: str = "v1", copy: Path = Path("absent")) -> LocalFiles:
    """Return the files of a job whose source has a version in its store, with a staged copy or without."""
    job = Job(Url("s3://b/a"), root.url / name, FileInfo("b/a", False, 3, version))
    return LocalFiles(job, copy, Path("absent"))


def intend(notes: RemoteManifest, root: RemotePath, name: str, recipe: str = "r") -> Record:
    """Write an output and record the intention."""
    root.file_system.write(root.below(name).path, b"output")
    return notes.intend(files(root, name), SOURCE, MADE, recipe)


def note(notes: RemoteManifest, root: RemotePath, name: str, recipe: str = "r") -> None:
    notes.note(intend(notes, root, name, recipe), root.file_system.info(root.below(name).path))


def line(name: str, recipe: str = "r") -> bytes:
    return Record(name, Fingerprint(6), SOURCE, recipe, "digest", "s3://b/a").to_line()


def test_record_round_trips_through_a_line():
    each = Record("ä/\udcff.png", Fingerprint(6, 0, "v"), SOURCE, "r", "digest", "s3://b/a")
    assert Record.from_line(each.to_line()) == each
    for damaged in (b"", b"[]", b"{}", b'{"output": "a"}', b"null", each.to_line()[:-20]):
        with pytest.raises(ValueError):  # noqa: PT011
            Record.from_line(damaged)


def test_record_line_of_an_earlier_version_is_read():
    source = '{"stamp":{"size":3,"mtime_ns":0,"version":"v1"},"content":"content"}'
    text = (
        f'{{"output":"a.png","size":6,"content":"digest","address":"s3://b/a","source":{source},"recipe":"r"'
    )
    for version in ("", "v"):
        found = Record.from_line(f'{text},"version":"{version}"}}'.encode())
        assert found == Record("a.png", Fingerprint(6, 0, version), SOURCE, "r", "digest", "s3://b/a")


@pytest.mark.parametrize("listed", [True, False])
def test_state_distinguishes_all_cases(root, listed):
    notes = RemoteManifest(root)
    note(notes, root, "noted.png")
    intend(notes, root, "intended.png")
    notes.close()
    root.file_system.write(root.below("foreign.png").path, b"?")
    notes = RemoteManifest(root, listed=listed)
    assert notes.state(files(root, "absent.png"), "r") is State.ABSENT
    assert notes.state(files(root, "foreign.png"), "r") is State.FOREIGN
    assert notes.state(files(root, "noted.png"), "r") is State.CURRENT
    assert notes.state(files(root, "noted.png"), "other") is State.STALE
    assert notes.state(files(root, "noted.png", "v2"), "r") is State.STALE
    intended = files(root, "intended.png")
    assert notes.state(intended, "r") is State.UNDECIDED
    assert notes.state_by_content(intended, "r", "other") is State.FOREIGN
    assert notes.state_by_content(intended, "other", "digest") is State.STALE
    assert notes.state_by_content(intended, "r", "digest") is State.CURRENT
    notes.close()
    assert RemoteManifest(root, listed=listed).state(intended, "r") is State.CURRENT


def test_manifest_without_a_list_sees_records_of_other_workers(root):
    """A worker that repeats the jobs of a lost worker must recognize its outputs."""
    one, other = RemoteManifest(root, listed=False), RemoteManifest(root, listed=False)
    note(other, root, "a.png")
    note(one, root, "b.png")
    intend(one, root, "c.png")
    assert other.state(files(root, "a.png"), "r") is State.CURRENT
    assert other.state(files(root, "b.png"), "r") is State.CURRENT
    assert other.state(files(root, "c.png"), "r") is State.UNDECIDED
    assert other.state_by_content(files(root, "c.png"), "r", "digest") is State.CURRENT


def test_manifest_without_a_list_reads_each_record_once(root, monkeypatch):
    for number in range(5):
        notes = RemoteManifest(root)
        note(notes, root, f"{number}.png")
        notes.close()
    notes, read, asked = RemoteManifest(root, listed=False), type(root.file_system).read, []

    def reading(self, path, *size):
        asked.append(path)
        return read(self, path, *size)

    monkeypatch.setattr(type(root.file_system), "read", reading)
    assert notes.state(files(root, "absent.png"), "r") is State.ABSENT
    assert asked == []
    for number in range(5):
        assert notes.state(files(root, f"{number}.png"), "another") is State.STALE
    assert len(asked) == 5


def test_source_with_the_same_content_is_current(root, tmp_path):
    notes = RemoteManifest(root)
    copy = tmp_path / "copy"
    copy.write_bytes(b"gray")
    source = SourceFingerprint(SOURCE.stamp, SourceFingerprint.of(copy).content)
    root.file_system.write(root.below("a.png").path, b"output")
    made = notes.intend(files(root, "a.png"), source, MADE, "r")
    notes.note(made, root.file_system.info(root.below("a.png").path))
    notes.close()
    notes = RemoteManifest(root)
    assert notes.state(files(root, "a.png", "v2"), "r") is State.STALE, "the source is not fetched yet"
    fetched = files(root, "a.png", "v2", copy)
    assert notes.state(fetched, "other") is State.STALE
    assert notes.state(files(root, "b.png", "v2", copy), "r") is State.ABSENT
    copy.write_bytes(b"grey")
    assert notes.state(fetched, "r") is State.STALE
    copy.write_bytes(b"gray")
    assert RemoteManifest(root, read_only=True).state(fetched, "r") is State.CURRENT
    assert notes.state(fetched, "r") is State.CURRENT
    notes.close()
    assert RemoteManifest(root).state(files(root, "a.png", "v2"), "r") is State.CURRENT


def test_intend_returns_after_writing(root):
    notes = RemoteManifest(root)
    intend(notes, root, "a.png")
    (part,) = parts(root)
    assert root.file_system.read(part) == line("a.png")


def test_concurrent_intentions_are_written_together(root, monkeypatch):
    notes = RemoteManifest(root)
    write, written = type(root.file_system).write, []

    def slow(self, path, content):
        written.append(content)
        time.sleep(0.05)
        write(self, path, content)

    monkeypatch.setattr(type(root.file_system), "write", slow)
    names = [f"{n}.png" for n in range(12)]
    threads = [
        threading.Thread(target=notes.intend, args=(files(root, name), SOURCE, MADE, "r")) for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(written) < 6
    assert sorted(written[-1].splitlines(keepends=True)) == sorted(map(line, names))


def test_manifest_parts_have_a_bounded_length(root):
    notes = RemoteManifest(root)
    for number in range(300):
        notes.intend(files(root, f"{number}.png"), SOURCE, MADE, "r")
    notes.close()
    sizes = [len(root.file_system.read(part).splitlines()) for part in parts(root)]
    assert sum(sizes) == 300
    assert max(sizes) <= 128


def test_run_without_outputs_leaves_no_part(root):
    notes = RemoteManifest(root)
    notes.prepare()
    assert len(parts(root)) == 1
    notes.close()
    assert parts(root) == []


def test_read_only_manifest_writes_nothing(root):
    for _ in range(20):
        name = atomic.claim(".jsonl")
        root.file_system.write(root.below(DIRECTORY).below(name).path, line("a.png"))
        atomic.release(name)
    root.file_system.write(root.below("a.png").path, b"output")
    before = parts(root)
    assert len(before) == 20
    notes = RemoteManifest(root, read_only=True)
    assert notes.state(files(root, "a.png"), "r") is State.UNDECIDED
    notes.close()
    assert parts(root) == before


def test_parts_of_ended_runs_are_merged(root, monkeypatch):
    for number in range(20):
        notes = RemoteManifest(root)
        note(notes, root, f"{number % 5}.png", f"r{number}")
        notes.close()
        assert len(parts(root)) <= 18
    other = root.below(DIRECTORY).below(".colorize-01234567-0000000001-000001.x.jsonl").path
    root.file_system.write(other, line("other.png"))
    root.file_system.write(root.below("other.png").path, b"output")
    notes = RemoteManifest(root)
    assert other in parts(root)
    for number in range(5):
        assert notes.state(files(root, f"{number}.png"), f"r{15 + number}") is State.CURRENT
    assert notes.state(files(root, "other.png"), "r") is State.UNDECIDED
    assert all(atomic.is_left_over(part.rpartition("/")[2]) for part in parts(root) if part != other)


def test_damaged_lines_are_skipped(root):
    root.file_system.write(root.below("a.png").path, b"output")
    path = root.below(DIRECTORY).below("damaged.jsonl").path
    root.file_system.write(path, b"\xff\n" + line("a.png") + line("a.png")[:30])
    notes = RemoteManifest(root)
    assert notes.state(files(root, "a.png"), "r") is State.UNDECIDED


def test_parts_that_vanish_are_listed_again(root, monkeypatch):
    """Another run may merge them meanwhile."""
    root.file_system.write(root.below("a.png").path, b"output")
    folder = root.below(DIRECTORY)
    root.file_system.write(folder.below("1.jsonl").path, b"")
    root.file_system.write(folder.below("2.jsonl").path, b"")
    read = type(root.file_system).read

    def vanishing(self, path, *size):
        if path.endswith("1.jsonl"):
            self.remove([path])
            self.write(folder.below("3.jsonl").path, line("a.png"))
        return read(self, path, *size)

    monkeypatch.setattr(type(root.file_system), "read", vanishing)
    assert RemoteManifest(root).state(files(root, "a.png"), "r") is State.UNDECIDED

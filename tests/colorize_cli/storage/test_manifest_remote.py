import itertools
import threading
import time

import pytest

from colorize_cli.core.location import Url
from colorize_cli.storage import atomic
from colorize_cli.storage.fingerprint import Fingerprint, SourceFingerprint
from colorize_cli.storage.manifest import DIRECTORY, State
from colorize_cli.storage.manifest_remote import RemoteManifest, RemoteRecord
from colorize_cli.storage.remote import FileSystems, RemotePath

pytestmark = pytest.mark.usefixtures("environment")

PLACES = itertools.count()
SOURCE = SourceFingerprint(Fingerprint(3, 0, "v1"), "content")


@pytest.fixture
def root() -> RemotePath:
    return FileSystems().locate(Url(f"memory://manifest-{next(PLACES)}"))


def parts(root: RemotePath) -> list[str]:
    folder = root.below(DIRECTORY)
    return (
        [found.path for found in root.file_system.find(folder.path)]
        if root.file_system.info(folder.path)
        else []
    )


def record(root: RemotePath, name: str, **changes) -> RemoteRecord:
    """What is noted of an output that is put now."""
    root.file_system.write(root.below(name).path, b"output")
    values = {"address": "s3://b/a", "source": SOURCE, "recipe": "r"} | changes
    return RemoteRecord(name, 6, "digest", **values)


def test_lines_survive():
    each = RemoteRecord("ä/\udcff.png", 6, "digest", "s3://b/a", SOURCE, "r", "v")
    assert RemoteRecord.from_line(each.to_line()) == each
    for line in (b"", b"[]", b"{}", b'{"output": "a"}', b"null", each.to_line()[:-20]):
        with pytest.raises(ValueError):  # noqa: PT011
            RemoteRecord.from_line(line)


def test_states(root):
    notes = RemoteManifest(root)
    for name in ("noted.png", "intended.png"):
        made = record(root, name)
        notes.intend(made)
        if name == "noted.png":
            notes.note(made, root.file_system.info(root.below(name).path))
    notes.close()
    root.file_system.write(root.below("foreign.png").path, b"?")
    notes = RemoteManifest(root)
    fingerprint = SOURCE.stamp
    assert notes.state("absent.png", fingerprint, "r") is State.ABSENT
    assert notes.state("foreign.png", fingerprint, "r") is State.FOREIGN
    assert notes.state("noted.png", fingerprint, "r") is State.CURRENT
    assert notes.state("noted.png", fingerprint, "other") is State.STALE
    assert notes.state("noted.png", Fingerprint(3, 0, "v2"), "r") is State.STALE
    assert notes.state("intended.png", fingerprint, "r") is None
    assert notes.state_by_content("intended.png", "other", fingerprint, "r") is State.FOREIGN
    assert notes.state_by_content("intended.png", "digest", fingerprint, "other") is State.STALE
    assert notes.state_by_content("intended.png", "digest", fingerprint, "r") is State.CURRENT
    notes.close()
    assert RemoteManifest(root).state("intended.png", fingerprint, "r") is State.CURRENT


def test_a_source_of_the_same_content(root):
    notes = RemoteManifest(root)
    made = record(root, "a.png")
    notes.intend(made)
    notes.note(made, root.file_system.info(root.below("a.png").path))
    notes.close()
    notes = RemoteManifest(root)
    moved = SourceFingerprint(Fingerprint(3, 0, "v2"), "content")
    assert not notes.is_made_from("a.png", SourceFingerprint(moved.stamp, "other"), "r")
    assert not notes.is_made_from("a.png", moved, "other")
    assert not notes.is_made_from("b.png", moved, "r")
    assert notes.is_made_from("a.png", moved, "r")
    notes.close()
    assert RemoteManifest(root).state("a.png", moved.stamp, "r") is State.CURRENT


def test_an_intention_is_written_when_it_returns(root):
    notes = RemoteManifest(root)
    notes.intend(record(root, "a.png"))
    (part,) = parts(root)
    assert root.file_system.read(part) == record(root, "a.png").to_line()


def test_who_waits_is_written_by_one_for_all(root, monkeypatch):
    notes = RemoteManifest(root)
    write, written = type(root.file_system).write, []

    def slow(self, path, content):
        written.append(content)
        time.sleep(0.05)
        write(self, path, content)

    monkeypatch.setattr(type(root.file_system), "write", slow)
    records = [RemoteRecord(f"{n}.png", 6, "digest", "-", SOURCE, "r") for n in range(12)]
    threads = [threading.Thread(target=notes.intend, args=(each,)) for each in records]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(written) < 6
    assert sorted(written[-1].splitlines(keepends=True)) == sorted(each.to_line() for each in records)


def test_parts_are_of_a_bounded_length(root):
    notes = RemoteManifest(root)
    for number in range(300):
        notes.intend(RemoteRecord(f"{number}.png", 6, "digest", "-", SOURCE, "r"))
    notes.close()
    sizes = [len(root.file_system.read(part).splitlines()) for part in parts(root)]
    assert sum(sizes) == 300
    assert max(sizes) <= 128


def test_a_run_that_makes_nothing_leaves_nothing(root):
    notes = RemoteManifest(root)
    notes.prepare()
    assert len(parts(root)) == 1
    notes.close()
    assert parts(root) == []


def test_who_only_asks_writes_nothing(root):
    for _ in range(20):
        name = atomic.claim(".jsonl")
        root.file_system.write(root.below(DIRECTORY).below(name).path, record(root, "a.png").to_line())
        atomic.release(name)
    before = parts(root)
    assert len(before) == 20
    assert RemoteManifest(root, read_only=True).state("a.png", SOURCE.stamp, "r") is None
    assert parts(root) == before


def test_parts_of_ended_runs_are_made_into_one(root, monkeypatch):
    for number in range(20):
        made = record(root, f"{number % 5}.png", recipe=f"r{number}")
        notes = RemoteManifest(root)
        notes.intend(made)
        notes.note(made, root.file_system.info(root.below(made.output).path))
        notes.close()
        assert len(parts(root)) <= 18
    other = root.below(DIRECTORY).below(".colorize-01234567-0000000001-000001.x.jsonl").path
    root.file_system.write(other, record(root, "other.png").to_line())
    notes = RemoteManifest(root)
    assert other in parts(root)
    for number in range(5):
        assert notes.state(f"{number}.png", SOURCE.stamp, f"r{15 + number}") is State.CURRENT
    assert notes.state("other.png", SOURCE.stamp, "r") is None
    assert all(atomic.is_left_over(part.rpartition("/")[2]) for part in parts(root) if part != other)


def test_what_is_damaged_in_it_counts_as_nothing(root):
    made = record(root, "a.png")
    path = root.below(DIRECTORY).below("damaged.jsonl").path
    root.file_system.write(path, b"\xff\n" + made.to_line() + made.to_line()[:30])
    notes = RemoteManifest(root)
    assert notes.state("a.png", SOURCE.stamp, "r") is None


def test_parts_that_vanish_are_looked_for_anew(root, monkeypatch):
    """As when another run makes them into one."""
    made = record(root, "a.png")
    folder = root.below(DIRECTORY)
    root.file_system.write(folder.below("1.jsonl").path, b"")
    root.file_system.write(folder.below("2.jsonl").path, b"")
    read = type(root.file_system).read

    def vanishing(self, path):
        if path.endswith("1.jsonl"):
            self.remove([path])
            self.write(folder.below("3.jsonl").path, made.to_line())
        return read(self, path)

    monkeypatch.setattr(type(root.file_system), "read", vanishing)
    assert RemoteManifest(root).state("a.png", SOURCE.stamp, "r") is None

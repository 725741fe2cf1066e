import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from colorize_cli.core.errors import WriteError
from colorize_cli.core.jobs import LocalFiles
from colorize_cli.storage import filesystem, manifest_local
from colorize_cli.storage.filesystem import Fingerprint, SourceFingerprint
from colorize_cli.storage.manifest import State, earlier_name
from colorize_cli.storage.manifest_local import LocalManifest
from tests.helpers.manifests import files, made, make


@pytest.fixture
def job(tmp_path) -> LocalFiles:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"grey")
    return files(tmp_path / "in" / "a.png", tmp_path / "out" / "sub" / "a.png")


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "out"


def journals(root: Path) -> list[Path]:
    return sorted((root / filesystem.DIRECTORY).iterdir())


def test_state_of_a_missing_output_is_absent(job, root):
    assert LocalManifest(root).state(job, "r") is State.ABSENT
    assert not root.exists(), "reading a state writes nothing"


def test_state_of_a_made_output_is_current_in_later_runs(job, root):
    manifest = LocalManifest(root)
    make(job, manifest)
    assert manifest.state(job, "r") is State.CURRENT
    manifest.close()
    assert LocalManifest(root).state(job, "r") is State.CURRENT


def test_state_with_another_recipe_is_stale(job, root):
    made(job, root)
    assert LocalManifest(root).state(job, "other") is State.STALE


def test_state_of_a_changed_source_is_stale(job, root):
    made(job, root)
    job.source.write_bytes(b"gray")
    os.utime(job.source, ns=(0, 0))
    assert LocalManifest(root).state(job, "r") is State.STALE


def test_state_of_a_source_changed_within_its_size_and_time_depends_on_checksum(job, root):
    made(job, root)
    before = job.source.stat().st_mtime_ns
    assert LocalManifest(root, checksum=True).state(job, "r") is State.CURRENT
    job.source.write_bytes(b"gray")
    os.utime(job.source, ns=(before, before))
    assert LocalManifest(root).state(job, "r") is State.CURRENT
    lines = journals(root)[0].read_bytes()
    assert LocalManifest(root, checksum=True).state(job, "r") is State.STALE
    assert [path.read_bytes() for path in journals(root)] == [lines]


def test_state_of_a_touched_source_is_current_and_recorded(job, root):
    made(job, root)
    os.utime(job.source, ns=(1, 1))
    assert LocalManifest(root, read_only=True).state(job, "r") is State.CURRENT
    assert len(journals(root)) == 1
    manifest = LocalManifest(root)
    assert manifest.state(job, "r") is State.CURRENT
    manifest.close()
    assert len(journals(root)) == 2
    job.source.write_bytes(b"gray")  # of the same length
    os.utime(job.source, ns=(1, 1))
    assert LocalManifest(root).state(job, "r") is State.CURRENT, (
        "the size and time equal the record, so it is not read again"
    )


def test_state_of_a_changed_output_is_foreign(job, root):
    made(job, root)
    job.destination.write_bytes(b"retouched")
    assert LocalManifest(root).state(job, "r") is State.FOREIGN
    other = files(job.source, root / "b.png")
    other.destination.write_bytes(b"mine")
    assert LocalManifest(root).state(other, "r") is State.FOREIGN


def test_state_of_a_link_as_output_is_foreign(job, root, tmp_path):
    made(job, root)
    job.destination.rename(tmp_path / "moved.png")
    job.destination.symlink_to(tmp_path / "moved.png")
    assert LocalManifest(root).state(job, "r") is State.FOREIGN


def test_record_without_its_output_is_ignored(job, root):
    made(job, root)
    manifest = LocalManifest(root)
    manifest.add(
        job, SourceFingerprint.of(job.source), Fingerprint(999, 999), "new"
    )  # and then the process was killed
    manifest.close()
    assert LocalManifest(root).state(job, "r") is State.CURRENT
    assert LocalManifest(root).state(job, "new") is State.STALE


def test_manifests_open_at_once_see_each_others_records(job, root):
    one, two = LocalManifest(root), LocalManifest(root)
    assert two.state(job, "r") is State.ABSENT
    make(job, one)
    assert two.state(job, "r") is State.CURRENT
    assert len(journals(root)) == 1
    make(files(job.source, root / "b.png"), two)
    assert len(journals(root)) == 2


def test_damaged_and_foreign_lines_are_skipped(job, root):
    made(job, root)
    (journal,) = journals(root)
    whole = journal.read_bytes()
    other = files(job.source, root / "b.png")
    for damage in (b'{"output":"a', b"\xff\x00\n", b'{"output":1}\n', b"[]\n", b'{"output":"sub/a.png"}\n'):
        journal.write_bytes(damage + b"\n" + whole + damage)
        manifest = LocalManifest(root)
        assert manifest.state(job, "r") is State.CURRENT
        make(other, manifest)
        manifest.close()
        assert LocalManifest(root).state(other, "r") is State.CURRENT


def test_hostile_manifest_takes_little_memory_and_loses_no_record(job, root, monkeypatch):
    made(job, root)
    folder = root / filesystem.DIRECTORY
    (folder / "deep.jsonl").write_bytes(b"[" * 50_000 + b"\n" + b'{"a":' * 12_000 + b"\n")
    with (folder / "a long line.jsonl").open("wb") as file:
        file.truncate(3 << 30)  # takes no space on the disk
        file.seek(0)
        file.write(b'{"output":"')
    os.mkfifo(folder / "pipe.jsonl")
    (folder / "zero.jsonl").symlink_to("/dev/zero")
    lines, read = manifest_local._lines, 0

    def counted(path, start=0):
        nonlocal read
        for each in lines(path, start):
            read += len(each[1])
            assert len(each[1]) <= manifest_local._BLOCK
            yield each
            if read > 1 << 24:  # the rest of 3 GiB is alike
                return

    monkeypatch.setattr(manifest_local, "_lines", counted)
    assert LocalManifest(root).state(job, "r") is State.CURRENT
    assert read > 1 << 24


def test_manifest_behind_a_link_is_refused_and_not_read(job, root, tmp_path):
    made(job, root)
    (root / filesystem.DIRECTORY).rename(tmp_path / "elsewhere")
    (root / filesystem.DIRECTORY).symlink_to(tmp_path / "elsewhere")
    before = sorted((tmp_path / "elsewhere").iterdir())
    linked = LocalManifest(root)
    assert linked.state(job, "r") is State.FOREIGN
    with pytest.raises(WriteError, match=r"cannot write below .*\.colorize: it is a link"):
        make(job, linked)
    assert sorted((tmp_path / "elsewhere").iterdir()) == before


def test_output_names_of_every_kind_are_recorded(job, root):
    for name in ("new\nline", "quote\"'", "ünïcode", os.fsdecode(b"\xff\xfe"), "x" * 250, "{}", " "):
        odd = files(job.source, root / name)
        made(odd, root)
        assert LocalManifest(root).state(odd, "r") is State.CURRENT


def test_threads_write_complete_lines(job, root):
    manifest = LocalManifest(root)
    jobs = [files(job.source, root / f"{i}.png") for i in range(200)]
    threads = [
        threading.Thread(target=lambda part: [make(j, manifest) for j in part], args=(jobs[i::4],))
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    manifest.close()
    again = LocalManifest(root)
    assert all(again.state(each, "r") is State.CURRENT for each in jobs)


def run_elsewhere(job: LocalFiles, root: Path) -> None:
    """Make an output in a process that ends."""
    code = (
        "import sys; from pathlib import Path;"
        "from tests.helpers.manifests import files, made;"
        "made(files(Path(sys.argv[1]), Path(sys.argv[2])), Path(sys.argv[3]))"
    )
    subprocess.run([sys.executable, "-c", code, job.source, job.destination, root], check=True)


def test_journals_of_ended_runs_are_merged(job, root, monkeypatch):
    monkeypatch.setattr(manifest_local, "_MOST_FILES", 2)
    jobs = [files(job.source, root / f"{i}.png") for i in range(3)]
    for each in jobs:
        run_elsewhere(each, root)
    jobs[0].destination.unlink()
    mine = LocalManifest(root)
    assert len(journals(root)) == 1
    assert len(journals(root)[0].read_bytes().splitlines()) == 2, "records of missing outputs are dropped"
    fresh = LocalManifest(root)
    for each_manifest in (mine, fresh):
        assert [each_manifest.state(each, "r") for each in jobs] == [
            State.ABSENT,
            State.CURRENT,
            State.CURRENT,
        ]


def test_journals_of_running_processes_are_not_merged(job, root, monkeypatch):
    monkeypatch.setattr(manifest_local, "_MOST_FILES", 0)
    manifest = LocalManifest(root)
    make(job, manifest)
    LocalManifest(root)
    other = files(job.source, root / "b.png")
    make(other, manifest)
    assert LocalManifest(root).state(other, "r") is State.CURRENT


def test_states_survive_a_merge_by_another_run(job, root, monkeypatch):
    jobs = [files(job.source, root / f"{i}.png") for i in range(3)]
    for each in jobs:
        run_elsewhere(each, root)
    mine = LocalManifest(root)
    assert mine.state(jobs[0], "r") is State.CURRENT
    monkeypatch.setattr(manifest_local, "_MOST_FILES", 2)
    LocalManifest(root)
    assert len(journals(root)) == 1
    assert [mine.state(each, "r") for each in jobs] == [State.CURRENT] * 3


def test_merge_keeps_the_last_line_of_an_output(job, root, monkeypatch):
    os.utime(job.source, ns=(5, 5))
    made(job, root)
    os.utime(job.source, ns=(1, 1))
    manifest = LocalManifest(root)
    assert manifest.state(job, "r") is State.CURRENT  # and records the new time
    manifest.close()
    monkeypatch.setattr(manifest_local, "_MOST_FILES", 0)
    LocalManifest(root)
    (journal,) = journals(root)
    (line,) = journal.read_bytes().splitlines()
    assert b'"mtime_ns":1}' in line
    assert b'"mtime_ns":5}' not in line


def test_merge_that_fails_loses_no_records(job, root, monkeypatch):
    """Another run that reads the merged journal, or merges too, would lose records if the merge fails."""
    jobs = [files(job.source, root / f"{i}.png") for i in range(3)]
    for each in jobs:
        run_elsewhere(each, root)
    mine = LocalManifest(root)
    seen, sync = [], manifest_local.atomic.sync

    def failing(_: int) -> None:
        monkeypatch.setattr(manifest_local.atomic, "sync", sync)
        seen.extend(mine.state(each, "r") for each in jobs)
        LocalManifest(root)  # merges the same journals
        raise OSError(28, "no space")

    monkeypatch.setattr(manifest_local, "_MOST_FILES", 2)
    monkeypatch.setattr(manifest_local.atomic, "sync", failing)
    LocalManifest(root)
    assert seen == [State.CURRENT] * 3
    assert [mine.state(each, "r") for each in jobs] == [State.CURRENT] * 3
    assert [LocalManifest(root).state(each, "r") for each in jobs] == [State.CURRENT] * 3
    assert [path.suffix for path in (root / filesystem.DIRECTORY).iterdir()] == [".jsonl"]


def test_unfinished_merge_of_a_killed_run_is_removed(job, root, monkeypatch):
    run_elsewhere(job, root)
    journal = journals(root)[0]
    journal.with_suffix(manifest_local._UNFINISHED).touch()  # its process has ended
    monkeypatch.setattr(manifest_local, "_MOST_FILES", 0)
    assert LocalManifest(root).state(job, "r") is State.CURRENT
    assert [path.suffix for path in journal.parent.iterdir()] == [".jsonl"]


def test_merge_with_an_unreadable_journal_is_abandoned(job, root, monkeypatch):
    jobs = [files(job.source, root / f"{i}.png") for i in range(3)]
    for each in jobs:
        run_elsewhere(each, root)
    before = journals(root)
    lines = manifest_local._lines

    def unreadable(path, start=0):
        yield from lines(path, start)
        if path == before[1]:
            raise OSError(5, "input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(manifest_local, "_MOST_FILES", 2)
        patched.setattr(manifest_local, "_lines", unreadable)
        LocalManifest(root)
    assert journals(root) == before


def test_name_that_cannot_be_encoded_is_unknown(root):
    assert LocalManifest(root)._known("\ud800.png", Fingerprint(1, 1)) is None


def test_many_outputs_are_found_across_blocks(job, root, monkeypatch):
    monkeypatch.setattr(manifest_local, "_BLOCK", 2000)
    manifest = LocalManifest(root)
    source, jobs = (
        SourceFingerprint.of(job.source),
        [files(job.source, root / f"{i:04d}.png") for i in range(500)],
    )
    root.mkdir()
    for each in jobs:
        each.destination.write_bytes(b"color")
        manifest.add(each, source, Fingerprint.of(each.destination.stat()), "r")
    manifest.close()
    known = LocalManifest(root)
    for each in (*jobs, *reversed(jobs), *jobs[::7]):
        assert known.state(each, "r") is State.CURRENT


def test_unwritable_journal_is_an_error(job, root):
    root.mkdir()
    (root / filesystem.DIRECTORY).touch()
    with pytest.raises(WriteError, match=r"\.colorize"):
        LocalManifest(root).add(job, SourceFingerprint.of(job.source), Fingerprint(1, 1), "r")


@pytest.mark.parametrize(
    ("source", "name", "earlier"),
    [
        ("a.gif", "sub/a.gif.png", "sub/a.png"),
        ("a.HEIC", "a.HEIC.jpg", "a.jpg"),
        ("a.mp4", "a.mp4.png", "a.png"),
        ("a.mp4.mp4", "a.mp4.mp4", None),
        ("a.gif.png", "a.gif.png", None),
        ("a.bmp", "a.png", None),
    ],
)
def test_earlier_name_is_of_outputs_that_kept_an_ending(root, source, name, earlier):
    assert earlier_name(name, files(root / source, root / name)) == earlier

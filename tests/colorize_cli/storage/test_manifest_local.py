import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from colorize_cli.core.errors import WriteError
from colorize_cli.core.jobs import Job
from colorize_cli.storage import manifest, manifest_local
from colorize_cli.storage.fingerprint import Fingerprint, SourceFingerprint
from colorize_cli.storage.manifest import State
from colorize_cli.storage.manifest_local import LocalManifest


@pytest.fixture
def job(tmp_path) -> Job:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"grey")
    return Job(tmp_path / "in" / "a.png", tmp_path / "out" / "sub" / "a.png")


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "out"


def make(job: Job, manifest: LocalManifest, content: bytes = b"colour") -> None:
    job.destination.parent.mkdir(parents=True, exist_ok=True)
    job.destination.write_bytes(content)
    manifest.add(job, SourceFingerprint.of(job.source), Fingerprint.of(job.destination.stat()))


def made(job: Job, root: Path, recipe: str = "r") -> None:
    manifest = LocalManifest(root, recipe)
    make(job, manifest)
    manifest.close()


def journals(root: Path) -> list[Path]:
    return sorted((root / manifest.DIRECTORY).iterdir())


def test_what_is_not_there_is_absent(job, root):
    assert LocalManifest(root, "r").state(job) is State.ABSENT
    assert not root.exists(), "asking writes nothing"


def test_what_was_made_is_current_also_for_the_next_run(job, root):
    manifest = LocalManifest(root, "r")
    make(job, manifest)
    assert manifest.state(job) is State.CURRENT
    manifest.close()
    assert LocalManifest(root, "r").state(job) is State.CURRENT


def test_another_recipe_makes_it_stale(job, root):
    made(job, root)
    assert LocalManifest(root, "other").state(job) is State.STALE


def test_another_content_makes_it_stale(job, root):
    made(job, root)
    job.source.write_bytes(b"gray")
    os.utime(job.source, ns=(0, 0))
    assert LocalManifest(root, "r").state(job) is State.STALE


def test_another_time_alone_does_not_and_is_noted(job, root):
    made(job, root)
    os.utime(job.source, ns=(1, 1))
    assert LocalManifest(root, "r", read_only=True).state(job) is State.CURRENT
    assert len(journals(root)) == 1
    manifest = LocalManifest(root, "r")
    assert manifest.state(job) is State.CURRENT
    manifest.close()
    assert len(journals(root)) == 2
    job.source.write_bytes(b"gray")  # of the same length
    os.utime(job.source, ns=(1, 1))
    assert LocalManifest(root, "r").state(job) is State.CURRENT, (
        "size and time as noted: it is not read again"
    )


def test_what_others_wrote_or_changed_is_foreign(job, root):
    made(job, root)
    job.destination.write_bytes(b"retouched")
    assert LocalManifest(root, "r").state(job) is State.FOREIGN
    other = Job(job.source, root / "b.png")
    other.destination.write_bytes(b"mine")
    assert LocalManifest(root, "r").state(other) is State.FOREIGN


def test_a_link_in_place_of_an_output_is_foreign(job, root, tmp_path):
    made(job, root)
    job.destination.rename(tmp_path / "moved.png")
    job.destination.symlink_to(tmp_path / "moved.png")
    assert LocalManifest(root, "r").state(job) is State.FOREIGN


def test_a_record_written_before_the_output_got_its_name_does_no_harm(job, root):
    made(job, root)
    manifest = LocalManifest(root, "new")
    manifest.add(
        job, SourceFingerprint.of(job.source), Fingerprint(999, 999)
    )  # and then the process was killed
    manifest.close()
    assert LocalManifest(root, "r").state(job) is State.CURRENT
    assert LocalManifest(root, "new").state(job) is State.STALE


def test_runs_at_the_same_time_see_what_the_others_made(job, root):
    one, two = LocalManifest(root, "r"), LocalManifest(root, "r")
    assert two.state(job) is State.ABSENT
    make(job, one)
    assert two.state(job) is State.CURRENT
    assert len(journals(root)) == 1
    make(Job(job.source, root / "b.png"), two)
    assert len(journals(root)) == 2


def test_torn_and_foreign_lines_are_passed_over(job, root):
    made(job, root)
    (journal,) = journals(root)
    whole = journal.read_bytes()
    other = Job(job.source, root / "b.png")
    for damage in (b'{"output":"a', b"\xff\x00\n", b'{"output":1}\n', b"[]\n", b'{"output":"sub/a.png"}\n'):
        journal.write_bytes(damage + b"\n" + whole + damage)
        manifest = LocalManifest(root, "r")
        assert manifest.state(job) is State.CURRENT
        make(other, manifest)
        manifest.close()
        assert LocalManifest(root, "r").state(other) is State.CURRENT


def test_names_of_every_kind(job, root):
    for name in ("new\nline", "quote\"'", "ünïcode", os.fsdecode(b"\xff\xfe"), "x" * 250, "{}", " "):
        odd = Job(job.source, root / name)
        made(odd, root)
        assert LocalManifest(root, "r").state(odd) is State.CURRENT


def test_many_threads_write_whole_lines(job, root):
    manifest = LocalManifest(root, "r")
    jobs = [Job(job.source, root / f"{i}.png") for i in range(200)]
    threads = [
        threading.Thread(target=lambda part: [make(j, manifest) for j in part], args=(jobs[i::4],))
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    manifest.close()
    again = LocalManifest(root, "r")
    assert all(again.state(each) is State.CURRENT for each in jobs)


def run_elsewhere(job: Job, root: Path) -> None:
    """Makes an output in a process that has ended."""
    code = (
        "import sys; from pathlib import Path;"
        "from tests.colorize_cli.storage.test_manifest_local import made, Job;"
        "made(Job(Path(sys.argv[1]), Path(sys.argv[2])), Path(sys.argv[3]))"
    )
    subprocess.run([sys.executable, "-c", code, job.source, job.destination, root], check=True)


def test_journals_of_ended_runs_become_one(job, root, monkeypatch):
    monkeypatch.setattr(manifest_local, "_MOST_FILES", 2)
    jobs = [Job(job.source, root / f"{i}.png") for i in range(3)]
    for each in jobs:
        run_elsewhere(each, root)
    jobs[0].destination.unlink()
    mine = LocalManifest(root, "r")
    assert len(journals(root)) == 1
    assert len(journals(root)[0].read_bytes().splitlines()) == 2, "what is gone is forgotten"
    fresh = LocalManifest(root, "r")
    for each_manifest in (mine, fresh):
        assert [each_manifest.state(each) for each in jobs] == [State.ABSENT, State.CURRENT, State.CURRENT]


def test_journals_of_runs_that_go_on_are_left_alone(job, root, monkeypatch):
    monkeypatch.setattr(manifest_local, "_MOST_FILES", 0)
    manifest = LocalManifest(root, "r")
    make(job, manifest)
    LocalManifest(root, "r")
    other = Job(job.source, root / "b.png")
    make(other, manifest)
    assert LocalManifest(root, "r").state(other) is State.CURRENT


def test_what_is_known_survives_that_another_run_makes_journals_into_one(job, root, monkeypatch):
    jobs = [Job(job.source, root / f"{i}.png") for i in range(3)]
    for each in jobs:
        run_elsewhere(each, root)
    mine = LocalManifest(root, "r")
    assert mine.state(jobs[0]) is State.CURRENT
    monkeypatch.setattr(manifest_local, "_MOST_FILES", 2)
    LocalManifest(root, "r")
    assert len(journals(root)) == 1
    assert [mine.state(each) for each in jobs] == [State.CURRENT] * 3


def test_the_last_line_on_an_output_is_kept(job, root, monkeypatch):
    os.utime(job.source, ns=(5, 5))
    made(job, root)
    os.utime(job.source, ns=(1, 1))
    manifest = LocalManifest(root, "r")
    assert manifest.state(job) is State.CURRENT  # and notes the new time
    manifest.close()
    monkeypatch.setattr(manifest_local, "_MOST_FILES", 0)
    LocalManifest(root, "r")
    (journal,) = journals(root)
    (line,) = journal.read_bytes().splitlines()
    assert b'"mtime_ns":1}' in line
    assert b'"mtime_ns":5}' not in line


def test_a_journal_made_of_others_is_none_before_it_is_complete(job, root, monkeypatch):
    """Another run that reads meanwhile, or makes one too, would lose what stands in it if that ends early."""
    jobs = [Job(job.source, root / f"{i}.png") for i in range(3)]
    for each in jobs:
        run_elsewhere(each, root)
    mine = LocalManifest(root, "r")
    seen, sync = [], manifest_local.atomic._sync

    def failing(_: Path) -> None:
        monkeypatch.setattr(manifest_local.atomic, "_sync", sync)
        seen.extend(mine.state(each) for each in jobs)
        LocalManifest(root, "r")  # makes one, from the same
        raise OSError(28, "no space")

    monkeypatch.setattr(manifest_local, "_MOST_FILES", 2)
    monkeypatch.setattr(manifest_local.atomic, "_sync", failing)
    LocalManifest(root, "r")
    assert seen == [State.CURRENT] * 3
    assert [mine.state(each) for each in jobs] == [State.CURRENT] * 3
    assert [LocalManifest(root, "r").state(each) for each in jobs] == [State.CURRENT] * 3
    assert [path.suffix for path in (root / manifest.DIRECTORY).iterdir()] == [".jsonl"]


def test_what_a_killed_run_left_of_such_a_journal_is_removed(job, root, monkeypatch):
    run_elsewhere(job, root)
    journal = journals(root)[0]
    journal.with_suffix(manifest_local._UNFINISHED).touch()  # of the same process, which has ended
    monkeypatch.setattr(manifest_local, "_MOST_FILES", 0)
    assert LocalManifest(root, "r").state(job) is State.CURRENT
    assert [path.suffix for path in journal.parent.iterdir()] == [".jsonl"]


def test_journals_stay_where_one_cannot_be_read(job, root, monkeypatch):
    jobs = [Job(job.source, root / f"{i}.png") for i in range(3)]
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
        LocalManifest(root, "r")
    assert journals(root) == before


def test_a_name_that_is_no_text_is_unknown(root):
    assert LocalManifest(root, "r")._known("\ud800.png", Fingerprint(1, 1)) is None


def test_many_outputs_are_known_block_by_block(job, root, monkeypatch):
    monkeypatch.setattr(manifest_local, "_BLOCK", 2000)
    manifest = LocalManifest(root, "r")
    source, jobs = (
        SourceFingerprint.of(job.source),
        [Job(job.source, root / f"{i:04d}.png") for i in range(500)],
    )
    root.mkdir()
    for each in jobs:
        each.destination.write_bytes(b"colour")
        manifest.add(each, source, Fingerprint.of(each.destination.stat()))
    manifest.close()
    known = LocalManifest(root, "r")
    for each in (*jobs, *reversed(jobs), *jobs[::7]):
        assert known.state(each) is State.CURRENT


def test_a_journal_that_cannot_be_written_is_said(job, root):
    root.mkdir()
    (root / manifest.DIRECTORY).touch()
    with pytest.raises(WriteError, match=r"\.colorize"):
        LocalManifest(root, "r").add(job, SourceFingerprint.of(job.source), Fingerprint(1, 1))

"""Guarantees about videos that a single run of the command does not show."""

import dataclasses
import os
import random
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from colorize_cli.core.errors import WriteError
from colorize_cli.core.jobs import Position
from colorize_cli.core.settings import Settings, VideoSettings
from colorize_cli.inference import model
from colorize_cli.video import chunks, encoder, pixel_format, stages, work_dir
from colorize_cli.video.reader import opened
from colorize_cli.video.stages import VideoStages, VideoStats
from tests.helpers.cli import invoke
from tests.helpers.videos import Recipe, look, make, packets

# x264's output depends on the processor.
LOSSLESS = Settings(video=VideoSettings(codec="ffv1"))


def run_video(source: Path, output: Path, network, settings: Settings, progress=lambda _: None) -> VideoStats:
    with work_dir.claimed(output, "key") as folder, opened(source) as video:
        chunk = work_dir.Chunk(source, output, folder.path)
        stats = chunks.colorize_chunk(chunk, video, network, settings, progress)
        chunks.concat([chunk], video.info, output, settings, stats.frames)
        folder.remove()
    return stats


@pytest.fixture(scope="module")
def network(models):
    return model.load(models.tinted, "cpu", threads=1)


class _Stop(Exception):  # noqa: N818 - what a test raises
    pass


@pytest.mark.parametrize("at", [1, 60, 61, 100, 119])
def test_stopped_run_is_resumed(network, tmp_path, at):
    source = make(tmp_path / "a.mkv", Recipe(frames=120, rate=Fraction(6), cut=70, codec="ffv1", options={}))
    settings = LOSSLESS
    whole = run_video(source, tmp_path / "whole.mkv", network, settings)

    def stop(position: Position) -> None:
        if position.frames == at:
            raise _Stop

    with pytest.raises(_Stop):
        run_video(source, tmp_path / "again.mkv", network, settings, stop)
    seen: list[int] = []
    stats = run_video(source, tmp_path / "again.mkv", network, settings, lambda p: seen.append(p.frames))
    assert seen[0] == (at // 60 if at != 60 else 0) * 60 + 1
    assert (stats.frames, stats.cuts) == (whole.frames, whole.cuts) == (120, 1)
    assert_same(tmp_path / "whole.mkv", tmp_path / "again.mkv")
    assert not (tmp_path / ".colorize").exists()


@pytest.mark.parametrize(("at", "kept"), [(4, 0), (5, 0), (6, 5), (31, 27), (61, 60), (70, 60), (79, 60)])
def test_run_stopped_near_a_cut_is_resumed(network, tmp_path, at, kept):
    """At 2 frames/s the segments from frames 5 and 27 end at split points, the one from 47 by length."""
    cuts = (5, 7, 27, 60, 65)
    options = {"crf": "10", "g": "1000", "sc_threshold": "0"}
    recipe = Recipe(
        frames=80, rate=Fraction(2), width=96, height=64, shots=cuts, keys=cuts[:4], options=options
    )
    source = make(tmp_path / "a.mkv", recipe)

    def stop(position: Position) -> None:
        if position.frames == at:
            raise _Stop

    whole = run_video(source, tmp_path / "whole.mkv", network, LOSSLESS)
    with pytest.raises(_Stop):
        run_video(source, tmp_path / "again.mkv", network, LOSSLESS, stop)
    seen: list[int] = []
    stats = run_video(source, tmp_path / "again.mkv", network, LOSSLESS, lambda p: seen.append(p.frames))
    assert seen == list(range(kept + 1, 81))
    assert (stats.frames, stats.cuts) == (whole.frames, whole.cuts) == (80, 5)
    assert packets(tmp_path / "whole.mkv") == packets(tmp_path / "again.mkv")


def test_journal_lines_incomplete_or_unknown_are_skipped(tmp_path):
    """A line may be incomplete after a kill, or from an earlier version. Later lines are still read."""
    folder = work_dir.WorkDir(tmp_path)
    first, second = (work_dir.Segment(f"00000{n}.nut", 400 * n, 10, 3, 0, 0) for n in range(2))
    ab = np.zeros((2, 4, 4), np.float32)
    for segment in (first, second):
        (tmp_path / segment.file).write_bytes(b"abc")
        with (tmp_path / "stretches.jsonl").open("ab") as journal:
            journal.write(
                b'{"file": "000000.nut", "first": 0, "frames": 10, "size": 3, "cuts": 0}\n{"file": "0000'
            )
        folder.add(segment, ab[0], ab)
    found = work_dir.WorkDir(tmp_path).done
    assert [dataclasses.replace(each, digest="") for each in found] == [first, second]
    (tmp_path / first.file).write_bytes(b"ab")
    assert work_dir.WorkDir(tmp_path).done == []
    (tmp_path / first.file).write_bytes(b"abcd")
    work_dir.WorkDir(tmp_path).add(work_dir.Segment(first.file, 0, 10, 4, 0, 0), ab[0], ab)
    assert [segment.size for segment in work_dir.WorkDir(tmp_path).done] == [4]


def assert_same(one: Path, other: Path) -> None:
    before, after = look(one), look(other)
    assert before.times == after.times
    for first, second in zip(before.lumas, after.lumas, strict=True):
        np.testing.assert_array_equal(first, second)
    assert before.chroma == pytest.approx(after.chroma, abs=1e-3)


def test_killed_runs_are_completed_with_the_same_output(models, tmp_path):
    source = make(tmp_path / "a.mkv", Recipe(frames=400, rate=Fraction(4), sounds=1))
    line = [sys.executable, "-m", "colorize_cli", "--model", models.tinted, "--device", "cpu", "-q"]
    # With a lossy codec, rounding differences of chroma would change luma.
    line += ["--codec", "ffv1"]
    chosen = random.Random(1)  # noqa: S311
    subprocess.run([*line, source, tmp_path / "whole"], check=True)
    for _ in range(4):
        with subprocess.Popen([*line, source, tmp_path / "out"]) as process:
            time.sleep(chosen.uniform(0.3, 1.5))
            process.send_signal(signal.SIGKILL)
    subprocess.run([*line, source, tmp_path / "out"], check=True)
    assert_same(tmp_path / "whole" / "a.mkv", tmp_path / "out" / "a.mkv")
    assert look(tmp_path / "whole" / "a.mkv").others == look(tmp_path / "out" / "a.mkv").others
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [".colorize", "a.mkv"]
    assert not [p for p in (tmp_path / "out" / ".colorize").iterdir() if p.is_dir()]


def test_left_over_work_directory_is_removed_by_the_next_run(models, tmp_path):
    source = make(tmp_path / "a.mkv", Recipe(frames=4))
    line = (source, tmp_path / "out", "--model", models.tinted, "--device", "cpu")
    assert invoke(*line).exit_code == 0
    with work_dir.claimed(tmp_path / "out" / "a.mkv", "of the killed run") as left:
        (left.path / "segment.mkv").touch()
        assert invoke(*line).exit_code == 0
        assert left.path.is_dir(), "another run has claimed it"
    with work_dir.claimed(tmp_path / "out" / "b.mkv", "of another output") as other:
        pass
    assert invoke(*line).exit_code == 0
    assert not left.path.exists()
    assert other.path.exists()


def test_claim_excludes_a_second_run(tmp_path):
    (tmp_path / "a.mkv").touch()
    with work_dir.claimed(tmp_path / "a.mkv", "key") as first:
        assert first is not None
        with work_dir.claimed(tmp_path / "a.mkv", "key") as second:
            assert second is None
        with work_dir.claimed(tmp_path / "a.mkv", "another key") as third:
            assert third is not None


def test_claim_of_an_ended_run_is_released(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from colorize_cli.video import pixel_format, work_dir\n"
        "with work_dir.claimed(Path(sys.argv[1]), 'key'): os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "a.mkv"], check=True)
    with work_dir.claimed(tmp_path / "a.mkv", "key") as folder:
        assert folder is not None
        assert len(list(folder.path.iterdir())) == 1


HOLD = """
import sys; from pathlib import Path; from colorize_cli.storage import atomic
from colorize_cli.video import pixel_format, work_dir
with work_dir.claimed(Path(sys.argv[1]), "key") as folder:
    print(atomic.process_prefix(), flush=True)
    sys.stdin.read()
"""


def test_claim_of_a_process_that_is_cut_off_can_be_released(tmp_path):
    line = [sys.executable, "-c", HOLD, tmp_path / "a.mkv"]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        prefix = other.stdout.readline().strip()
        with work_dir.claimed(tmp_path / "a.mkv", "key") as refused:
            assert refused is None
        work_dir.release_claims(tmp_path, f"{prefix[:-17]}{'0' * 16}-")
        with work_dir.claimed(tmp_path / "a.mkv", "key") as refused:
            assert refused is None
        work_dir.release_claims(tmp_path, prefix)
        with work_dir.claimed(tmp_path / "a.mkv", "key") as freed:
            assert freed is not None
        other.stdin.close()


def test_video_that_another_run_colorizes_is_a_failure(models, tmp_path):
    source = make(tmp_path / "a.mkv", Recipe(frames=4))
    line = (source, tmp_path / "out", "--model", models.tinted, "--device", "cpu", "--overwrite")
    recipe = None

    def claimed(destination: Path, key: str):
        nonlocal recipe
        recipe = key
        return work_dir_claimed(destination, key)

    work_dir_claimed = work_dir.claimed
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work_dir, "claimed", claimed)
        assert invoke(*line).exit_code == 0
    with work_dir.claimed(tmp_path / "out" / "a.mkv", recipe):
        result = invoke(*line)
    assert result.exit_code == 1
    reason = "another run is colorizing it; run the command again when that has ended"
    assert f"{source}: {reason}\n" in result.stderr
    assert invoke(*line).exit_code == 0


def test_claims_of_many_runs_at_once_exclude_each_other(tmp_path):
    """Also where runs remove the directory while others claim it."""
    busy, most, errors = 0, 0, []

    def work() -> None:
        nonlocal busy, most
        try:
            for _ in range(20):
                with work_dir.claimed(tmp_path / "a.mkv", "key") as folder:
                    if folder is not None:
                        busy += 1
                        most = max(most, busy)
                        (folder.path / "segment").touch()
                        time.sleep(0.001)
                        busy -= 1
                        folder.remove()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, errors) == (1, [])


@pytest.mark.parametrize("name", ["stretches.jsonl", "000000.nut", "parts.json"])
@pytest.mark.parametrize("put", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_work_directory_with_a_pipe_or_directory_for_a_file_is_used(network, tmp_path, name, put):
    with work_dir.claimed(tmp_path / "b.mkv", "key") as folder:
        pass
    put(folder.path / name)
    source = make(tmp_path / "a.mkv", Recipe(frames=4, codec="ffv1", options={}))
    assert run_video(source, tmp_path / "b.mkv", network, LOSSLESS).frames == 4


def test_work_directories_of_other_options_are_removed_by_a_claim(tmp_path):
    output = tmp_path / "a.mkv"
    with (
        work_dir.claimed(output, "old") as old,
        work_dir.claimed(tmp_path / "b.mkv", "old") as other,
        work_dir.claimed(output, "new") as new,
    ):
        assert old.path.exists(), "a run has claimed it"
    with work_dir.claimed(output, "newest") as newest:
        assert [each.path.exists() for each in (old, new, other, newest)] == [False, False, True, True]


def test_work_directory_behind_a_link_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".colorize").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(WriteError, match="is a link; remove it"), work_dir.claimed(tmp_path / "a.mkv", "key"):
        pass
    assert list((tmp_path / "elsewhere").iterdir()) == []


def exchange_by_link(folder: Path, elsewhere: Path) -> None:
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)


def exchange_by_directory(folder: Path, elsewhere: Path) -> None:
    folder.rename(elsewhere)
    folder.mkdir()


@pytest.mark.parametrize("exchange", [exchange_by_link, exchange_by_directory])
def test_work_directory_exchanged_in_mid_run_fails(network, tmp_path, exchange):
    source = make(tmp_path / "a.mkv", Recipe(frames=90, rate=Fraction(6), codec="ffv1", options={}))

    def attack(position: Position) -> None:
        if position.frames == 60:
            exchange(next((tmp_path / ".colorize").iterdir()), tmp_path / "elsewhere")

    with pytest.raises((WriteError, OSError)):
        run_video(source, tmp_path / "b.mkv", network, LOSSLESS, attack)
    assert not (tmp_path / "b.mkv").exists()
    assert not list((tmp_path / "elsewhere").glob("000001*"))
    exchange_back = next((tmp_path / ".colorize").iterdir())
    exchange_back.unlink() if exchange_back.is_symlink() else exchange_back.rmdir()


def damage_segment(folder: Path) -> None:
    content = bytearray((folder / "000000.nut").read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    (folder / "000000.nut").write_bytes(content)


def damage_state(folder: Path) -> None:
    file = folder / "000000.nut.npz"
    file.write_bytes(bytes(file.stat().st_size))


def damage_journal(folder: Path) -> None:
    journal = folder / "stretches.jsonl"
    journal.write_text(journal.read_text().replace('"frames": 20', '"frames": 10') + "[" * 100_000 + "\n")


@pytest.mark.parametrize("damage", [damage_segment, damage_state, damage_journal])
@pytest.mark.parametrize("at", ["between runs", "at the end"])
def test_damaged_work_directory_is_made_again(network, tmp_path, damage, at):
    source = make(tmp_path / "a.mkv", Recipe(frames=30, rate=Fraction(2), codec="ffv1", options={}))
    run_video(source, tmp_path / "whole.mkv", network, LOSSLESS)

    def attack(position: Position) -> None:
        if position.frames == (25 if at == "between runs" else 30):
            damage(next((tmp_path / ".colorize").iterdir()))
            if at == "between runs":
                raise _Stop

    expected, message = (_Stop, None) if at == "between runs" else (WriteError, "of 30 frames .* are intact")
    with pytest.raises(expected, match=message):
        run_video(source, tmp_path / "b.mkv", network, LOSSLESS, attack)
    assert run_video(source, tmp_path / "b.mkv", network, LOSSLESS).frames == 30
    assert_same(tmp_path / "whole.mkv", tmp_path / "b.mkv")


def test_frames_in_memory_are_bounded_and_no_thread_is_left(network, tmp_path, monkeypatch):
    source = make(tmp_path / "a.mkv", Recipe(frames=300))
    alive, most = 0, 0
    lock = threading.Lock()
    copied, with_chroma = VideoStages._copy, encoder.Encoder.add

    def copy(self, item):
        nonlocal alive, most
        with lock:
            alive += 1
            most = max(most, alive)
        return copied(self, item)

    def add(self, frame):
        nonlocal alive
        with lock:
            alive -= 1
        return with_chroma(self, frame)

    monkeypatch.setattr(VideoStages, "_copy", copy)
    monkeypatch.setattr(encoder.Encoder, "add", add)
    before = threading.active_count()
    run_video(source, tmp_path / "b.mkv", network, Settings())
    assert most <= stages._FRAMES_IN_FLIGHT + Settings().workers + 10
    assert threading.active_count() == before


@pytest.mark.parametrize("options", [{"batch_size": 1, "workers": 1}, {"batch_size": 16, "workers": 4}])
def test_frames_are_independent_of_batches_and_workers(network, tmp_path, options):
    source = make(tmp_path / "a.mkv", Recipe(frames=50, codec="ffv1", options={}))
    run_video(source, tmp_path / "b.mkv", network, LOSSLESS)
    run_video(source, tmp_path / "c.mkv", network, dataclasses.replace(LOSSLESS, **options))
    assert_same(tmp_path / "b.mkv", tmp_path / "c.mkv")


@pytest.mark.parametrize("name", ["default", "open"])
def test_packets_with_a_bundled_model_are_independent_of_batches(bundled_model, tmp_path, name):
    """Batches depend on the speed of the stages, and differ from run to run."""
    loaded = model.load(bundled_model.with_name(f"{name}.onnx"), "cpu", threads=2)
    source = make(tmp_path / "a.mkv", Recipe(frames=11, codec="ffv1", options={}))
    seen = []
    for batch_size in (1, 3, 8):
        settings = dataclasses.replace(LOSSLESS, batch_size=batch_size, size=96)
        run_video(source, tmp_path / "b.mkv", loaded, settings)
        seen.append(packets(tmp_path / "b.mkv"))
    assert seen[0] == seen[1] == seen[2]


def test_chroma_planes_are_left_sited():
    from colorize_cli.color.ycbcr import BT601, Coding
    from colorize_cli.video.pixel_format import Layout, VideoInfo

    coding = Coding(8, full=False)
    info = VideoInfo(
        64, 32, Layout("yuv420p", 8, (2, 2)), coding, BT601, 0, Fraction(1), Fraction(1), Fraction(1)
    )
    luma = np.full((32, 64), 120, np.uint8)
    ramp = np.broadcast_to(np.linspace(-20, 20, 32, dtype=np.float32), (2, 16, 32))
    cb, cr = pixel_format.chroma_planes(luma, ramp, 1.0, info, Layout("yuv420p", 8, (2, 2)))
    whole, _ = pixel_format.chroma_planes(luma, ramp, 1.0, info, Layout("yuv444p", 8, (1, 1)))
    assert cb.shape == cr.shape == (16, 32)
    # Left-sited samples at half the width coincide with the even samples at full width.
    difference = cb[:, 4:-4].astype(float) - whole[::2, 8:-8:2]
    assert np.abs(difference).mean() < 0.5


def test_peak_memory_is_independent_of_length(models, tmp_path):
    if not hasattr(os, "wait4"):
        pytest.skip("no peak memory of children here")
    peaks = []
    for frames in (100, 800):
        source = make(tmp_path / f"{frames}.mkv", Recipe(frames=frames, width=160, height=120))
        line = [sys.executable, "-m", "colorize_cli", "--model", models.tinted, "--device", "cpu", "-q"]
        process = subprocess.Popen([*line, source, tmp_path / f"{frames}-out.mkv"])
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        peaks.append(usage.ru_maxrss)
    assert peaks[1] < 1.1 * peaks[0]


def test_discard_of_a_vanished_work_directory_is_silent(tmp_path, monkeypatch):
    with work_dir.claimed(tmp_path / "a.mkv", "key") as left:
        pass
    monkeypatch.setattr(work_dir.atomic, "sweep", lambda path: path.rmdir())
    work_dir.discard(tmp_path / "a.mkv")
    assert not left.path.exists()

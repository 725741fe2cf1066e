"""The cluster engine repeats lost work, refuses bad requests, and leaves nothing behind."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from colorize_cli.cli.run import command
from colorize_cli.core import formats
from colorize_cli.core.errors import ModelError
from colorize_cli.core.jobs import Job, Outcome, Position, Status
from colorize_cli.core.settings import Settings, available_cores
from colorize_cli.engine import ENGINES, videos
from colorize_cli.engine import cluster as engine
from colorize_cli.engine.cluster import connect as clusters
from colorize_cli.engine.cluster.dispatch import Answer
from colorize_cli.engine.cluster.pool import NodeInfo, WorkerPool
from colorize_cli.storage import discovery
from colorize_cli.video import chunks, work_dir
from tests.helpers import chunked_videos, fake_session
from tests.helpers.cli import contents
from tests.helpers.clusters import Nodes, alive, descendants, run_jobs, started, wait_for
from tests.helpers.videos import Recipe, make

COUNT = 2000


@pytest.fixture(scope="module")
def many(tmp_path_factory, gray_photo) -> Path:
    """A folder `in` with 2,000 pictures of 64 x 48 pixels in ten subfolders."""
    parent = tmp_path_factory.mktemp("many")
    small = np.asarray(Image.fromarray(gray_photo).resize((64, 48)))
    for number in range(COUNT):
        folder = parent / "in" / f"{number % 10}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.roll(small, number, axis=1)).save(folder / f"{number:04d}.png", compress_level=1)
    return parent / "in"


@pytest.fixture(scope="module")
def expected(many, models) -> dict[str, bytes]:
    """The outputs of the local engine for these pictures."""
    output = many.with_name("local")
    plan = discovery.plan([many], output, formats.endings())
    outcomes = list(ENGINES["local"](plan, Settings(model=models.tinted, device="cpu"), print))
    assert [outcome.status for outcome in outcomes] == [Status.DONE] * COUNT
    return contents(output)


def made(output: Path) -> int:
    return sum(1 for _ in output.rglob("[!.]*.png"))


def session_folders() -> set[Path]:
    return set(Path("/tmp").glob(f".colorize-*{clusters._SUFFIX}"))  # noqa: S108


def test_cluster_output_equals_that_of_the_local_engine(many, expected, models):
    before = session_folders()
    running = started("in", "on-one", models.tinted, "--json", "-q", cwd=many.parent)
    wait_for(lambda: made(many.with_name("on-one")) > 100)
    processes = descendants(running.pid)
    assert any("ray::Actor" in name for name in alive(processes))
    out, err = running.communicate(timeout=120)
    assert (running.returncode, err) == (0, "")
    assert len(out.splitlines()) == COUNT
    assert all('"status": "done"' in line and '"source": "in/' in line for line in out.splitlines())
    assert contents(many.with_name("on-one")) == expected
    wait_for(lambda: not alive(processes), 5)
    assert session_folders() <= before


def test_interrupted_and_killed_runs_are_completed(many, expected, models):
    output, before = many.with_name("again"), session_folders()
    group = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), "start_new_session": True}
    running = started(many, output, models.tinted, **group)
    wait_for(lambda: made(output) > 50)
    processes = descendants(running.pid)
    os.killpg(running.pid, signal.SIGINT)  # like a terminal, to all processes of the command
    begun = time.monotonic()
    out, err = running.communicate(timeout=30)
    assert time.monotonic() - begun < 8
    assert (running.returncode, out) == (130, "")
    assert "interrupted: " in err
    assert "Traceback" not in err
    wait_for(lambda: not alive(processes), 2)
    assert session_folders() <= before
    assert_whole(output, many)

    running = started(many, output, models.tinted)
    wait_for(lambda: made(output) > 300)
    processes = descendants(running.pid)
    running.kill()
    running.communicate()
    # Ray's agents, which only answer requests, take a minute to find out that they are orphans.
    agents = ("ray::Dashboard", "ray::RuntimeEnv")
    wait_for(lambda: all(name.startswith(agents) for name in alive(processes)), 20)
    assert made(output) < COUNT

    running = started(many, output, models.tinted)
    _, err = running.communicate(timeout=120)
    assert running.returncode == 0, err
    done, skipped = (int(word) for word in err.splitlines()[-1].replace(",", "").split()[:3:2])
    assert done > 0
    assert skipped >= 300
    assert done + skipped == COUNT
    assert contents(output) == expected
    assert session_folders() <= before


def assert_whole(output: Path, source: Path) -> None:
    """Assert that some outputs are missing, and that all existing ones can be read."""
    found = contents(output)
    assert 50 < len(found) < len(contents(source))
    for name in found:
        assert not Path(name).name.startswith(".")
        with Image.open(output / name) as image:
            image.load()


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder:
        found = Nodes(folder)
        yield found
        found.end()


def test_killed_node_loses_only_its_unfinished_files(many, expected, models, nodes):
    second = nodes.add()
    output = many.with_name("on-two")
    options = ("--address", nodes.address)
    running = started(many, output, models.tinted, *options, env=nodes.environment)
    wait_for(lambda: made(output) > 300 and len(nodes.actors()) == 2)
    nodes.remove(second)
    assert made(output) < COUNT
    out, err = running.communicate(timeout=120)
    assert (running.returncode, out) == (0, ""), err
    assert "a worker ended unexpectedly; its unfinished files are done again" in err
    assert f"{COUNT} done, 0 skipped, 0 failed" in err
    assert contents(output) == expected
    wait_for(lambda: not nodes.actors(), 5)


def test_signal_ends_only_the_actors_of_the_run(many, models, nodes, tmp_path):
    options = ("--address", nodes.address)
    running = started(many, tmp_path / "out", models.tinted, *options, env=nodes.environment)
    wait_for(lambda: made(tmp_path / "out") > 50)
    assert nodes.actors()
    running.terminate()
    _, err = running.communicate(timeout=30)
    assert running.returncode == 130, err
    wait_for(lambda: not nodes.actors(), 5)
    assert_whole(tmp_path / "out", many)


def test_node_of_another_version_is_named(many, models, nodes, tmp_path):
    description = tmp_path / "colorize_cli-9.9.dist-info"
    description.mkdir()
    (description / "METADATA").write_text("Metadata-Version: 2.1\nName: colorize-cli\nVersion: 9.9\n")
    paths = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    other = nodes.add(env_vars={"PYTHONPATH": paths})
    try:
        options = ("--address", nodes.address)
        running = started(many, tmp_path / "out", models.tinted, *options, env=nodes.environment)
        out, err = running.communicate(timeout=60)
    finally:
        nodes.remove(other)
    assert (running.returncode, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("colorize: node ")
    assert "has colorize-cli 9.9, but this machine has 0.1.0" in line
    assert contents(tmp_path / "out") == {}


def actors_below(process: int) -> list[int]:
    return [
        number
        for number, start in descendants(process).items()
        if "ray::Actor" in str(alive({number: start}))
    ]


def test_chunk_of_a_killed_worker_is_repeated(models, nodes, tmp_path):
    second = nodes.add()
    source = tmp_path / "in" / "a.mkv"
    settings = dataclasses.replace(chunked_videos.LOSSLESS, model=models.tinted, device="cpu")
    source.parent.mkdir()
    make(source, dataclasses.replace(chunked_videos.VIDEO, width=960, height=720))
    plan = discovery.plan([source.parent], tmp_path / "local", formats.endings())
    (local,) = ENGINES["local"](plan, settings, print)
    try:
        options = ("--address", nodes.address, "--json", "--codec", "ffv1")
        running = started("in", "ray", models.tinted, *options, env=nodes.environment, cwd=tmp_path)
        folders = tmp_path / "ray" / ".colorize"
        wait_for(lambda: len(list(folders.glob("film-*/part-*"))) == 2)  # one for each worker
        actors = actors_below(os.getpid())
        os.kill(actors[-1], signal.SIGKILL)
        all_chunks = json.loads(next(folders.glob("film-*/parts.json")).read_bytes())
        out, err = running.communicate(timeout=120)
    finally:
        nodes.remove(second)
    assert len(actors) == 2
    assert len(all_chunks) == 4
    assert running.returncode == 0, err
    assert "a worker ended unexpectedly; its unfinished files are done again" in err
    said = json.loads(out)
    assert (said["source"], said["frames"], said["cuts"]) == ("in/a.mkv", local.frames, local.cuts)
    assert [path.name for path in (tmp_path / "ray").rglob("*") if "film-" in path.name] == []
    chunked_videos.assert_same(tmp_path / "local" / "a.mkv", tmp_path / "ray" / "a.mkv")


class Both:
    """Colorize a video with both engines; the cluster engine splits it as for two workers."""

    def __init__(self, folder: Path, model: Path, monkeypatch) -> None:
        (folder / "in").mkdir()
        self.folder, self.source = folder, folder / "in" / "a.mkv"
        self.settings = dataclasses.replace(chunked_videos.LOSSLESS, model=model, device="cpu")
        self.answers: list[tuple[int, Status]] = []
        answered = videos.ClaimedVideo.answered

        def noted(video, chunk, outcome):
            self.answers.append((chunk.number, outcome.status))
            return answered(video, chunk, outcome)

        monkeypatch.setattr(WorkerPool, "size", lambda _: 2)
        monkeypatch.setattr(videos.ClaimedVideo, "answered", noted)

    def outcome(self, engine: str, **options) -> Outcome:
        self.answers.clear()
        plan = discovery.plan([self.source.parent], self.folder / engine, formats.endings())
        (outcome,) = ENGINES[engine](plan, self.settings, print, **options)
        return outcome

    def assert_same(self) -> None:
        chunked_videos.assert_same(self.folder / "local" / "a.mkv", self.folder / "ray" / "a.mkv")
        assert list(self.folder.glob("ray/.colorize/film-*")) == []


@pytest.fixture
def both(cluster, models, monkeypatch, tmp_path) -> Both:
    return Both(tmp_path, models.tinted, monkeypatch)


VIDEO = dataclasses.replace(chunked_videos.VIDEO, width=64, height=48, sounds=1)
ALL_DONE = [(number, Status.DONE) for number in range(4)]


def test_video_in_chunks_equals_that_of_the_local_engine(both):
    make(both.source, VIDEO)
    local, outcome = both.outcome("local"), both.outcome("ray")
    assert sorted(both.answers, key=str) == ALL_DONE
    assert (outcome.job.source, outcome.device) == (both.source, "cpu")
    for field in ("status", "reason", "frames", "cuts", "batch"):
        assert getattr(outcome, field) == getattr(local, field), field
    assert outcome.seconds.keys() == local.seconds.keys()
    both.assert_same()
    assert both.outcome("ray").reason == "up to date"
    assert both.answers == []


def test_failed_chunk_fails_the_video_and_keeps_the_others(both, monkeypatch):
    make(both.source, VIDEO)
    both.outcome("local")
    all_chunks = chunks.split

    def longer(*arguments):
        *others, last = all_chunks(*arguments)
        return (*others, dataclasses.replace(last, frames=last.frames + 5))

    with monkeypatch.context() as patched:
        patched.setattr(chunks, "split", longer)
        outcome = both.outcome("ray")
    assert (outcome.status, outcome.reason) == (Status.FAILED, "it had 105 frames, and has 100 now")
    assert sorted(both.answers, key=str) == [*ALL_DONE[:3], (3, Status.FAILED)]
    (folder,) = both.folder.glob("ray/.colorize/film-*")
    assert [path.name for path in folder.iterdir() if path.name.endswith(".claim")] == []
    assert all(work_dir.WorkDir(folder / f"part-{number:04d}").done for number in range(3))
    assert both.outcome("ray").status is Status.DONE
    both.assert_same()


def test_damaged_video_fails_as_with_the_local_engine(both, tmp_path):
    chunked_videos.damaged(make(tmp_path / "whole.mkv", chunked_videos.VIDEO), both.source)
    local, outcome = both.outcome("local"), both.outcome("ray")
    assert local.status is Status.FAILED
    assert (outcome.status, outcome.reason) == (local.status, local.reason)
    assert sorted(both.answers, key=str) == ALL_DONE
    assert (both.folder / "ray" / "a.mkv").is_file()


def test_short_and_unusable_videos_are_not_split(both):
    """Short videos, videos in color, and a file that is no video."""
    make(both.source, dataclasses.replace(VIDEO, frames=30, shots=(5, 12), keys=(5, 12)))
    assert both.outcome("ray").status is Status.DONE
    make(both.source, dataclasses.replace(VIDEO, is_color=True))
    assert both.outcome("ray").reason == "already in color"
    both.source.write_bytes(b"no film")
    local, outcome = both.outcome("local"), both.outcome("ray")
    assert (outcome.status, outcome.reason) == (local.status, local.reason)
    assert outcome.status is Status.FAILED
    assert both.answers == []


def test_run_jobs_returns_an_outcome_per_job(cluster):
    given = list(fake_session.jobs(500))
    outcomes = list(run_jobs(iter(given)))
    assert Counter(outcome.job for outcome in outcomes) == Counter(given)
    assert {outcome.status for outcome in outcomes} == {Status.DONE}
    assert len({outcome.device for outcome in outcomes}) == 1, "one actor"
    assert {outcome.batch for outcome in outcomes} == {available_cores()}, "which has all cores"


def test_run_jobs_yields_outcomes_while_taking_jobs(cluster):
    taken = 0

    def source() -> Iterator[Job]:
        nonlocal taken
        for job in fake_session.jobs(3000):
            taken += 1
            yield job

    largest = 0
    for number, _ in enumerate(run_jobs(source())):
        largest = max(largest, taken - number)
    assert taken == 3000
    assert largest <= engine.JOBS_PER_BATCH * 6


def test_job_that_ends_its_workers_fails_alone(cluster, tmp_path):
    lines: list[str] = []
    poison = Job(tmp_path / fake_session.POISON, tmp_path / fake_session.POISON)
    given = [*fake_session.jobs(20), poison, *fake_session.jobs(60)][:70]
    outcomes = list(run_jobs(dict.fromkeys(given), announce=lines.append))
    assert len(outcomes) == len(dict.fromkeys(given))
    failed = [outcome for outcome in outcomes if outcome.status is not Status.DONE]
    assert [(outcome.job, outcome.status) for outcome in failed] == [(poison, Status.FAILED)]
    assert "3 workers of the cluster ended unexpectedly while they processed it" in (failed[0].reason or "")
    assert len(lines) >= 2
    assert all("a worker ended unexpectedly; its unfinished files are done again" in line for line in lines)


def test_lost_actors_leave_no_files(cluster, tmp_path):
    """Neither temporary files nor claims on videos stay; a claim would block other runs."""
    poison = Job(tmp_path / fake_session.POISON, tmp_path / fake_session.POISON)
    (tmp_path / ".colorize" / "film-0123").mkdir(parents=True)
    others = tmp_path / ".colorize-00000000-0000000001-000001.png"
    others.touch()
    (outcome,) = run_jobs([poison])
    assert outcome.status is Status.FAILED
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == [others]


def test_video_progress_is_reported_back(cluster):
    heard: list[Position] = []
    video = Job(Path("a film.mp4"), Path("out") / "a film.mp4")
    outcomes = list(run_jobs([*fake_session.jobs(3), video], seconds=1.5, progress=heard.append))
    assert len(outcomes) == 4
    assert {position.path for position in heard} == {video.source}
    assert max(position.frames for position in heard) == 2


def test_session_error_is_raised_unchanged(cluster, models, make_folder, tmp_path):
    plan = discovery.plan([make_folder(tmp_path / "in", 2)], tmp_path / "out", formats.endings())
    settings = Settings(model=models.tinted, device="cpu", precision="int8")
    with pytest.raises(ModelError, match=r"^there is no int8 variant of the model"):
        list(ENGINES["ray"](plan, settings, print))


def test_guidance_and_videos_equal_those_of_the_local_engine(cluster, models, make_folder, tmp_path):
    from skimage import data

    source = make_folder(tmp_path / "in", 3)
    # Matroska files contain random numbers, and x264 is not bit-stable on every processor.
    make(source / "film.avi", Recipe(codec="mpeg4", time_base=Fraction(1, 25), options={}))
    Image.fromarray(data.chelsea()).save(tmp_path / "cat.png")
    (tmp_path / "hints.json").write_text('{"0000.png": {"points": [{"x": 20, "y": 30, "color": "#c03030"}]}}')
    settings = Settings(
        model=models.tinted, device="cpu", hints=tmp_path / "hints.json", reference=tmp_path / "cat.png"
    )
    for name in ENGINES:
        plan = discovery.plan([source], tmp_path / name, formats.endings())
        assert {outcome.status for outcome in ENGINES[name](plan, settings, print)} == {Status.DONE}
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")
    assert len(contents(tmp_path / "ray")) == 4


def test_finished_plan_needs_no_cluster(models, make_folder, tmp_path, monkeypatch):
    plan = discovery.plan([make_folder(tmp_path / "in", 6)], tmp_path / "out", formats.endings())
    settings = Settings(model=models.gray, device="cpu")
    list(ENGINES["local"](plan, settings, print))
    monkeypatch.setattr(engine, "joined", lambda _: pytest.fail("a cluster"))
    outcomes = list(ENGINES["ray"](plan, settings, print))
    assert [(o.status, o.reason) for o in outcomes] == [(Status.SKIPPED, "up to date")] * 6


def test_outcome_after_a_lost_worker_counts_as_done():
    job = Job(Path("a.png"), Path("out") / "a.png")
    returned = {"status": Status.SKIPPED, "reason": "up to date"}
    assert engine._outcome(job, Answer(job, returned, losses=1)) == Outcome(job, Status.DONE)
    assert engine._outcome(job, Answer(job, returned, losses=0)) == Outcome(job, Status.SKIPPED, "up to date")


def node(**resources: float) -> dict:
    return {
        "NodeID": "ab12",
        "NodeManagerHostname": "host",
        "NodeManagerAddress": "10.0.0.1",
        "Resources": resources,
    }


@pytest.mark.parametrize(
    ("device", "resources", "expected"),
    [
        ("auto", {"CPU": 8.0}, (1, 8, 0)),
        ("auto", {"CPU": 8.0, "GPU": 4.0}, (4, 2, 1)),
        ("cuda", {"CPU": 2.0, "GPU": 4.0}, (4, 1, 1)),
        ("cpu", {"CPU": 8.0, "GPU": 4.0}, (1, 8, 0)),
        ("cuda", {"CPU": 8.0}, None),
        ("auto", {"CPU": 0.0}, None),
        ("auto", {}, None),
    ],
)
def test_node_info_has_an_actor_per_node_or_gpu(device, resources, expected):
    info = NodeInfo.of(node(**resources), device)
    assert (info and (info.actors, info.cores, info.gpus)) == expected


def invoke(*arguments: object):
    return CliRunner().invoke(command, [*map(str, arguments), "--engine", "ray"])


def test_impossible_arguments_are_refused_in_one_line(models, make_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # these tests initialize it
    source, output = make_folder(tmp_path / "in", 2), tmp_path / "out"
    options = ("--model", models.gray, "--device")
    for arguments, said in (
        (("-", "-", *options, "cpu"), "--engine ray cannot use -"),
        ((source / "0000.png", "-", *options, "cpu"), "--engine ray cannot use -"),
        ((source, output, *options, "cuda:0"), "use --device auto, cpu or cuda"),
        ((source, output, *options, "cpu", "--address", "ray://host:1"), "must be host:port or auto"),
        (
            (source, output, *options, "cpu", "--address", "127.0.0.1:1"),
            "cannot connect to a cluster at 127.0.0.1:1",
        ),
    ):
        result = invoke(*arguments)
        assert result.exit_code == 2, result.output
        assert said in result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert result.stdout == ""
    assert CliRunner().invoke(command, [str(source), str(output), "--address", "auto"]).exit_code == 2


def test_missing_ray_names_the_installation(make_folder, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("colorize_cli.engine.cluster")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("colorize_cli.engine.cluster")
    monkeypatch.setitem(sys.modules, "ray", None)
    result = invoke(make_folder(tmp_path / "in", 2), tmp_path / "out")
    assert result.exit_code == 2
    assert result.stderr == "colorize: --engine ray needs Ray: pip install 'colorize-cli[ray]'\n"


def test_dry_run_does_not_load_ray(make_folder, tmp_path):
    code = (
        "import sys; from colorize_cli.cli.run import command;"
        "command(sys.argv[1:], standalone_mode=False); sys.exit('ray' in sys.modules)"
    )
    line = [sys.executable, "-c", code, make_folder(tmp_path / "in", 2), tmp_path / "out", "--dry-run"]
    line += ["--engine", "ray"]
    done = subprocess.run(list(map(str, line)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("colorize\t") == 2


def test_later_nodes_get_work_with_an_actor_per_gpu(nodes, tmp_path):
    code = """
import sys
from tests.helpers import clusters, fake_session
from colorize_cli.core.settings import Settings
settings = Settings(engine="ray", address=sys.argv[1])
for outcome in clusters.run_jobs(fake_session.jobs(10**6), 0.02, settings=settings):
    print(outcome.device, outcome.batch, flush=True)
"""
    line = [sys.executable, "-c", code, nodes.address]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=nodes.environment) as running:
        assert running.stdout is not None
        first = running.stdout.readline().split()
        later = nodes.add(num_cpus=6, num_gpus=2)
        seen = {first[0]: first[1]}
        for outcome in running.stdout:
            process, cores = outcome.split()
            seen[process] = cores
            if len(seen) == 3:
                break
        running.terminate()
        running.stdout.read()
    nodes.remove(later)
    assert sorted(seen.values()) == ["1", "3", "3"], "the head has a core, and each GPU of the other three"

import itertools
import os
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from colorize_cli.core import formats
from colorize_cli.core.errors import UsageError
from colorize_cli.core.location import STREAM, Url
from colorize_cli.storage.discovery import Selection, plan

pytestmark = pytest.mark.usefixtures("environment")

ENDINGS = formats.endings()
PLACES = itertools.count()


@pytest.fixture
def memory():
    """Fill a directory in memory and return its URL."""

    def fill(*names: str) -> str:
        url = f"memory://plan-{next(PLACES)}"
        files = fsspec.filesystem("memory")
        for name in names:
            files.pipe_file(f"{url}/{name}", b"x")
        return url

    return fill


def pairs(planned) -> list[tuple[str, str]]:
    return [(str(job.source), str(job.destination)) for job in planned.jobs]


def test_plan_of_a_store_equals_that_of_a_folder(memory, tmp_path):
    names = [
        "b.jpg",
        "a.PNG",
        "sub/deep/c.gif",
        "sub.d/x.tif",
        "notes.txt",
        ".hidden.jpg",
        ".git/d.jpg",
        "x.mp4",
        "@eaDir/b.jpg/thumb.jpg",
        "sub/Thumbs.db",
        "colored/.colorize/1.jsonl",
        "colored/a.jpg",
        "colored/deep/b.jpg",
        "killed/.colorize/film-1/2.jsonl",
        "killed/e.jpg",
        "raw/a.DNG",
    ]
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    url = memory(*names)
    for selection in (
        Selection(),
        Selection(include=("*.jpg", "sub/*")),
        Selection(exclude=("deep", "*.tif")),
        Selection(shard=(2, 3)),
    ):
        here = plan([tmp_path / "in"], tmp_path / "out", ENDINGS, selection=selection)
        there = plan([Url(url)], Url(f"{url}-out"), ENDINGS, selection=selection)
        assert pairs(there) == [
            (
                f"{url}/{job.source.relative_to(tmp_path / 'in')}",
                f"{url}-out/{job.destination.relative_to(tmp_path / 'out')}",
            )
            for job in here.jobs
        ]
        assert len(there.elsewhere) == len(here.elsewhere)
        assert [
            (str(each.job.source), str(each.job.destination), each.reason, each.ignored)
            for each in there.left_out
        ] == [
            (
                f"{url}/{each.job.source.relative_to(tmp_path / 'in')}".removesuffix("/."),
                f"{url}-out/{each.job.destination.relative_to(tmp_path / 'out')}".removesuffix("/."),
                each.reason,
                each.ignored,
            )
            for each in here.left_out
        ]
        assert len(here.left_out) == (1 if selection.include else 2)


def test_plan_of_one_object_goes_to_an_object_or_directory(memory, tmp_path):
    url = memory("a.jpg", "dir.png/b.jpg")
    source = Url(f"{url}/a.jpg")
    for output, expected in (
        ("new/b.png", "new/b.png"),
        ("out", "out/a.jpg"),
        ("dir.png", "dir.png/a.jpg"),
        ("out.png/", "out.png/a.jpg"),
    ):
        planned = plan([source], Url(f"{url}/{output}"), ENDINGS)
        assert pairs(planned) == [(f"{url}/a.jpg", f"{url}/{expected}")]
        assert (planned.root is None) == (expected == output)
    assert pairs(plan([source], tmp_path / "b.png", ENDINGS)) == [(f"{url}/a.jpg", f"{tmp_path}/b.png")]
    with pytest.raises(UsageError, match=r"does not end in one of"):
        plan([source], Url(f"{url}/b.xyz"), ENDINGS)
    with pytest.raises(UsageError, match="is a file; give a directory"):
        plan([Url(url)], source, ENDINGS)


def test_plan_of_mixed_inputs_detects_collisions(memory, tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "a.jpg").touch()
    (tmp_path / "c.jpg").touch()
    url = memory("b.jpg", "sub/d.jpg")
    inputs = [tmp_path / "here", Url(url), tmp_path / "c.jpg"]
    for output in (Url(f"{url}-out"), tmp_path / "out"):
        assert pairs(plan(inputs, output, ENDINGS)) == [
            (f"{tmp_path}/here/a.jpg", f"{output}/a.jpg"),
            (f"{url}/b.jpg", f"{output}/b.jpg"),
            (f"{url}/sub/d.jpg", f"{output}/sub/d.jpg"),
            (f"{tmp_path}/c.jpg", f"{output}/c.jpg"),
        ]
    other = memory("a.jpg")
    for output in (Url(f"{url}-out"), tmp_path / "out"):
        with pytest.raises(UsageError) as raised:
            plan([tmp_path / "here", Url(other)], output, ENDINGS)
        assert f"{tmp_path}/here/a.jpg and {other}/a.jpg would both become {output}/a.jpg" in str(
            raised.value
        )


def test_plan_refuses_an_input_as_output(memory):
    url = memory("a.jpg", "out/a.jpg")
    for same in (url, f"{url}/", url.replace("memory://", "memory:///")):
        with pytest.raises(UsageError, match="inputs are never modified"):
            plan([Url(url)], Url(same), ENDINGS)
    with pytest.raises(UsageError, match="would replace the input"):
        plan([Url(f"{url}/a.jpg")], Url(url), ENDINGS)
    assert pairs(plan([Url(url)], Url(f"{url}/out"), ENDINGS)) == [(f"{url}/a.jpg", f"{url}/out/a.jpg")]


def test_plan_of_a_pattern_takes_its_matches(memory):
    url = memory("1950/a.jpg", "1951/b.jpg", "1951/sub/c.jpg", "2000/d.jpg", "[x].jpg")
    planned = plan([Url(f"{url}/195*")], Url(f"{url}-out"), ENDINGS)
    assert pairs(planned) == [
        (f"{url}/1950/a.jpg", f"{url}-out/a.jpg"),
        (f"{url}/1951/b.jpg", f"{url}-out/b.jpg"),
        (f"{url}/1951/sub/c.jpg", f"{url}-out/sub/c.jpg"),
    ]
    planned = plan([Url(f"{url}/1951/*.jpg"), Url(f"{url}/[[]x[]].jpg")], Url(f"{url}-out"), ENDINGS)
    assert [source for source, _ in pairs(planned)] == [f"{url}/1951/b.jpg", f"{url}/[x].jpg"]
    assert len(plan([Url(f"{url}/[x].jpg")], Url(f"{url}-out"), ENDINGS).jobs) == 1
    for nothing in ("absent", "x*"):
        with pytest.raises(UsageError, match="no such file or directory: memory://"):
            plan([Url(f"{url}/{nothing}")], Url(f"{url}-out"), ENDINGS)


def test_plan_refuses_names_that_leave_the_directory(memory, tmp_path):
    url = memory()
    names = {
        "../up.jpg": "its name has . or .. as a part; rename it",
        "a/../../up.jpg": "its name has . or .. as a part; rename it",
        "/etc/root.jpg": "its name is impossible for a local file; rename it",
        "a//b.jpg": "its name is impossible for a local file; rename it",
        "nul\0.jpg": "its name is impossible for a local file; rename it",
        "fine.jpg": None,
    }
    files = fsspec.filesystem("memory")
    for name in names:
        files.store[f"{files._strip_protocol(url)}/{name}"] = type(files.open(f"{url}-x", "wb"))(
            files, "", b"x"
        )
    planned = plan([Url(url)], tmp_path / "out", ENDINGS)
    assert {str(job.source).removeprefix(f"{url}/"): job.refused for job in planned.jobs} == names
    for job in planned.jobs:
        assert os.path.normpath(job.destination).startswith(f"{tmp_path}/out/")
    refused = {
        str(job.source).removeprefix(f"{url}/")
        for job in plan([Url(url)], Url(f"{url}-out"), ENDINGS).jobs
        if job.refused
    }
    assert refused == {"../up.jpg", "a/../../up.jpg"}


def test_plan_of_lists_and_streams_accepts_urls(memory, tmp_path):
    url = memory("sub/a.jpg", "b.jpg")
    listed = [Url(f"{url}/sub/a.jpg"), Url(f"{url}/absent.jpg"), Url(f"{url}/sub")]
    planned = plan([], tmp_path / "out", ENDINGS, listed=listed)
    assert [(job.destination.name, job.refused) for job in planned.jobs] == [
        ("a.jpg", None),
        ("absent.jpg", "there is no such object"),
    ]
    assert [str(each.job.source) for each in planned.left_out] == [f"{url}/sub"]
    assert pairs(plan([Url(f"{url}/b.jpg")], STREAM, ENDINGS)) == [(f"{url}/b.jpg", "-")]
    assert pairs(plan([STREAM], Url(f"{url}/c.jpg"), ENDINGS)) == [("-", f"{url}/c.jpg")]
    for inputs, output in (
        ([Url(url)], STREAM),
        ([STREAM], Url(url)),
        ([STREAM, Url(f"{url}/b.jpg")], Url(f"{url}/c.jpg")),
    ):
        with pytest.raises(UsageError, match="with - for"):
            plan(inputs, output, ENDINGS)


class Insensitive(LocalFileSystem):
    """A store of files that does not distinguish upper and lower case."""

    protocol = "insensitive"

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("insensitive://"))

    def info(self, path, **options):
        if isinstance(path, os.DirEntry):
            return super().info(path, **options)
        path = Path(self._strip_protocol(path))
        alike = [each for each in path.parent.glob("*") if each.name.lower() == path.name.lower()]
        return super().info(str(alike[0] if alike else path), **options)


fsspec.register_implementation("insensitive", Insensitive, clobber=True)


@pytest.mark.parametrize("exists", [True, False])
def test_plan_names_that_a_store_folds_are_refused(memory, tmp_path, exists):
    url, output = memory("IMG.JPG", "img.jpg"), tmp_path / "there" / "out"
    if exists:
        output.mkdir(parents=True)
    with pytest.raises(UsageError) as raised:
        plan([Url(url)], Url(f"insensitive://{output}"), ENDINGS)
    assert str(raised.value) == (
        f"{url}/IMG.JPG and {url}/img.jpg would both become insensitive://{output}/img.jpg,"
        f" as the file system of insensitive://{output} does not tell their names apart; rename one"
    )
    made = ["out", "there"] if exists else []
    assert sorted(path.name for path in tmp_path.rglob("*")) == [*made, "tmp"]
    assert len(plan([Url(url)], Url(f"{url}-out"), ENDINGS).jobs) == 2


@pytest.mark.usefixtures("locked")
def test_plan_directory_of_a_store_that_cannot_be_searched_is_a_refused_job(tmp_path):
    for name in ("a.jpg", "locked/b.jpg", "sub/locked/c.jpg", "z.jpg"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    url = f"insensitive://{tmp_path}/in"
    planned = plan([Url(url)], tmp_path / "out", ENDINGS, selection=Selection(include=("*.jpg",)))
    reason = "cannot search it: Permission denied"
    assert [(str(job.source), str(job.destination), job.refused) for job in planned.jobs] == [
        (f"{url}/a.jpg", f"{tmp_path}/out/a.jpg", None),
        (f"{url}/locked", f"{tmp_path}/out/locked", reason),
        (f"{url}/sub/locked", f"{tmp_path}/out/locked", reason),
        (f"{url}/z.jpg", f"{tmp_path}/out/z.jpg", None),
    ]
    with pytest.raises(UsageError, match=r"in/locked: Permission denied"):
        plan([Url(f"{url}/locked")], tmp_path / "out", ENDINGS)


def test_plan_finds_the_hints_beside_objects(memory):
    url = memory("in/a.jpg", "in/a.jpg.hints.json", "in/sub/b#1.jpg", "in/sub/b#1.jpg.hints.json", "in/c.jpg")
    planned = plan([Url(f"{url}/in")], Url(f"{url}/out"), ENDINGS)
    hints = {str(job.source): job.hints and str(job.hints) for job in planned.jobs}
    assert hints == {
        f"{url}/in/a.jpg": f"{url}/in/a.jpg.hints.json",
        f"{url}/in/c.jpg": None,
        f"{url}/in/sub/b#1.jpg": f"{url}/in/sub/b#1.jpg.hints.json",
    }
    assert planned.left_out == ()
    named = plan([Url(f"{url}/in/a*"), Url(f"{url}/in/sub/b#1.jpg")], Url(f"{url}/out"), ENDINGS)
    assert {str(job.source): str(job.hints) for job in named.jobs} == {
        source: path for source, path in hints.items() if path
    }

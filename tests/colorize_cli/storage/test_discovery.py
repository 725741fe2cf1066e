import inspect
import io
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from colorize_cli.core.errors import ReadError, UsageError
from colorize_cli.core.formats import HINTS_SUFFIX
from colorize_cli.core.jobs import Job, Plan, Status
from colorize_cli.core.location import STREAM
from colorize_cli.storage import discovery, filesystem, stdio
from colorize_cli.storage.discovery import Selection
from colorize_cli.storage.filesystem import LocalStorage, Storages

ENDINGS = {".jpg": ".jpg", ".png": ".png"}


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def pairs(plan: Plan, root: Path) -> list[tuple[str, str]]:
    return [(str(j.source.relative_to(root)), str(j.destination.relative_to(root))) for j in plan.jobs]


def left_out(plan: Plan) -> list[tuple]:
    assert {outcome.status for outcome in plan.left_out} <= {Status.SKIPPED}
    return [(each.job.source, each.reason, each.ignored) for each in plan.left_out]


def test_plan_of_a_tree_keeps_and_sorts_it(tmp_path):
    touch(tmp_path / "in", "b.jpg", "a.PNG", "sub/deep/c.jpg", "notes.txt", ".hidden.jpg", ".git/d.jpg")
    plan = discovery.plan([tmp_path / "in"], tmp_path / "out", ENDINGS)
    assert pairs(plan, tmp_path) == [
        ("in/a.PNG", "out/a.PNG"),
        ("in/b.jpg", "out/b.jpg"),
        ("in/sub/deep/c.jpg", "out/sub/deep/c.jpg"),
    ]
    assert left_out(plan) == [(tmp_path / "in", "files of other kinds ignored: .txt 1", {".txt": 1})]


def test_plan_of_one_file_to_a_file_has_that_name(tmp_path):
    touch(tmp_path, "a.jpg")
    plan = discovery.plan([tmp_path / "a.jpg"], tmp_path / "new" / "b.png", ENDINGS)
    assert pairs(plan, tmp_path) == [("a.jpg", "new/b.png")]


def test_plan_of_one_file_into_a_directory_keeps_its_name(tmp_path):
    touch(tmp_path, "a.jpg")
    (tmp_path / "dir.png").mkdir()
    for output in ("out", "dir.png"):
        plan = discovery.plan([tmp_path / "a.jpg"], tmp_path / output, ENDINGS)
        assert pairs(plan, tmp_path) == [("a.jpg", f"{output}/a.jpg")]


def test_plan_includes_a_named_file_of_unknown_kind(tmp_path):
    touch(tmp_path, "a.xyz", "b.jpg")
    plan = discovery.plan([tmp_path / "a.xyz", tmp_path / "b.jpg"], tmp_path / "out", ENDINGS)
    assert [job.source.name for job in plan.jobs] == ["a.xyz", "b.jpg"]


def test_plan_of_the_same_input_twice_has_one_job(tmp_path):
    touch(tmp_path / "in", "a.jpg")
    plan = discovery.plan([tmp_path / "in", tmp_path / "in" / "a.jpg"], tmp_path / "out", ENDINGS)
    assert len(plan.jobs) == 1


def test_plan_follows_links_but_not_loops(tmp_path):
    touch(tmp_path, "in/a.jpg", "elsewhere/b.jpg")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "in")
    plan = discovery.plan([tmp_path / "in"], tmp_path / "out", ENDINGS)
    assert pairs(plan, tmp_path) == [("in/a.jpg", "out/a.jpg"), ("in/link/b.jpg", "out/link/b.jpg")]


def test_plan_of_directories_linked_to_each_other_searches_each_once(tmp_path):
    names = [f"d{number}" for number in range(8)]
    touch(tmp_path / "in", *(f"{name}/a.jpg" for name in names))
    for name in names:
        for other in names:
            (tmp_path / "in" / name / f"to-{other}").symlink_to(tmp_path / "in" / other)
    (tmp_path / "in" / "before").symlink_to(tmp_path / "in" / "d7")
    found = LocalStorage().glob(tmp_path / "in" / "**" / "*.jpg")
    assert [entry.location.parent.name for entry in found] == names
    plan = discovery.plan([tmp_path / "in"], tmp_path / "out", ENDINGS)
    assert pairs(plan, tmp_path) == [(f"in/{name}/a.jpg", f"out/{name}/a.jpg") for name in names]


def test_plan_of_a_tree_deeper_than_the_stack_finds_its_end(tmp_path):
    deep = "in/" + "d/" * 300
    touch(tmp_path, f"{deep}a.jpg", "in/e.jpg")
    limit = sys.getrecursionlimit()
    try:
        sys.setrecursionlimit(len(inspect.stack(0)) + 150)
        plan = discovery.plan([tmp_path / "in"], tmp_path / "out", ENDINGS)
    finally:
        sys.setrecursionlimit(limit)
    assert [job.source for job in plan.jobs] == [tmp_path / deep / "a.jpg", tmp_path / "in" / "e.jpg"]


def test_plan_refuses_pipes_and_devices_however_they_are_given(tmp_path):
    touch(tmp_path, "in/a.jpg")
    os.mkfifo(tmp_path / "in" / "pipe.jpg")
    (tmp_path / "in" / "zero.jpg").symlink_to("/dev/zero")
    files = [tmp_path / "in" / name for name in ("a.jpg", "pipe.jpg", "zero.jpg")]
    for inputs, listed in (([tmp_path / "in"], []), (files, []), ([tmp_path / "in/*"], []), ([], files)):
        plan = discovery.plan(inputs, tmp_path / "out", ENDINGS, listed=listed)
        why = "it is neither a file nor a directory, but a pipe or a device; pipe its content into - instead"
        assert {job.source: job.refused for job in plan.jobs} == dict(
            zip(files, [None, why, why], strict=True)
        )
    for output in (tmp_path / "out.jpg", STREAM):
        assert discovery.plan([files[1]], output, ENDINGS).jobs[0].refused == why


def test_plan_refuses_pipes_as_hints(tmp_path):
    touch(tmp_path, "in/a.jpg")
    pipe = tmp_path / "in" / f"a.jpg{HINTS_SUFFIX}"
    os.mkfifo(pipe)
    plan = discovery.plan([tmp_path / "in"], tmp_path / "out", ENDINGS)
    assert [(job.source, job.refused is None, job.hints) for job in plan.jobs] == [
        (tmp_path / "in" / "a.jpg", True, None),
        (pipe, False, None),
    ]
    with pytest.raises(UsageError, match=r"a\.jpg\S*: it is neither a file nor a directory"):
        discovery.plan([tmp_path / "in" / "a.jpg"], tmp_path / "out", ENDINGS)


def test_opened_pipe_does_not_wait(tmp_path):
    os.mkfifo(tmp_path / "a")
    for name in (tmp_path / "a", Path("/dev/zero")):
        with pytest.raises(OSError, match="not a regular file"):
            filesystem.open_regular(name)


def test_plan_of_a_list_with_impossible_names_refuses_these_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(touch(tmp_path, "a.jpg"))
    long = Path("n" * 300 + ".jpg")
    listed = discovery.read_list(io.BytesIO(b"a.jpg\nmissing/..\n" + b"n" * 300 + b".jpg\n"), nul=False)
    plan = discovery.plan([], Path("out"), ENDINGS, listed=listed)
    refused = [(job.destination, job.refused) for job in plan.jobs]
    assert refused == [
        (Path("out/a.jpg"), None),
        (Path("out"), "it is not the name of a file"),
        (Path("out") / long, "its output's name would be longer than 255 bytes; rename it"),
    ]
    plan = discovery.plan([Path("a.jpg"), long], Path("out"), ENDINGS)
    assert [job.refused for job in plan.jobs] == [None, "File name too long"]


class Endless(io.RawIOBase):
    """A stream without an end, which counts what is read."""

    given = 0

    def read(self, size: int = -1) -> bytes:
        assert size > 0
        self.given += size
        return b"a" * size


def test_read_list_without_an_end_is_refused_at_a_bound(monkeypatch):
    monkeypatch.setattr(discovery, "_MOST_LIST", 3 << 20)
    stream = Endless()
    with pytest.raises(UsageError, match="the list of files is longer than 3 MiB; divide it"):
        discovery.read_list(stream, nul=False)
    assert stream.given <= 4 << 20


def test_read_stdin_without_an_end_is_refused_at_a_bound(monkeypatch):
    monkeypatch.setattr(stdio, "_MOST_PICTURE", 2 << 20)
    monkeypatch.setattr(stdio, "stdin", Endless)
    with pytest.raises(ReadError, match="standard input is longer than 2 MiB; give the picture as a file"):
        stdio.read_stdin()


def test_plan_does_not_search_the_output_in_the_input(tmp_path):
    touch(tmp_path, "a.jpg", "out/a.jpg")
    plan = discovery.plan([tmp_path], tmp_path / "out", ENDINGS)
    assert pairs(plan, tmp_path) == [("a.jpg", "out/a.jpg")]


def test_plan_names_sources_with_one_destination(tmp_path):
    touch(tmp_path, "one/a.jpg", "two/a.jpg")
    with pytest.raises(UsageError) as raised:
        discovery.plan([tmp_path / "one", tmp_path / "two"], tmp_path / "out", ENDINGS)
    assert str(tmp_path / "one/a.jpg") in str(raised.value)
    assert str(tmp_path / "two/a.jpg") in str(raised.value)


def test_plan_detects_a_collision_through_a_link(tmp_path):
    touch(tmp_path, "one/sub/a.jpg", "two/x/a.jpg", "out/sub/keep")
    (tmp_path / "out" / "x").symlink_to(tmp_path / "out" / "sub")
    with pytest.raises(UsageError, match="both"):
        discovery.plan([tmp_path / "one", tmp_path / "two"], tmp_path / "out", ENDINGS)


@pytest.mark.parametrize("output", ["in", "in/../in", "link"])
def test_plan_refuses_an_input_as_destination(tmp_path, output):
    touch(tmp_path, "in/a.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    with pytest.raises(UsageError, match="input"):
        discovery.plan([tmp_path / "in"], tmp_path / output, ENDINGS)
    with pytest.raises(UsageError, match="input"):
        discovery.plan([tmp_path / "in" / "a.jpg"], tmp_path / output, ENDINGS)


def test_plan_refuses_a_linked_source_as_destination(tmp_path):
    touch(tmp_path, "out/a.jpg")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").symlink_to(tmp_path / "out" / "a.jpg")
    with pytest.raises(UsageError, match="input"):
        discovery.plan([tmp_path / "in"], tmp_path / "out", ENDINGS)


def test_plan_refuses_missing_inputs_and_blocked_outputs(tmp_path):
    touch(tmp_path, "a.jpg", "b.jpg", "file")
    with pytest.raises(UsageError, match="no such file"):
        discovery.plan([tmp_path / "absent"], tmp_path / "out", ENDINGS)
    with pytest.raises(UsageError, match="is a file"):
        discovery.plan([tmp_path / "a.jpg", tmp_path / "b.jpg"], tmp_path / "file", ENDINGS)
    with pytest.raises(UsageError, match="is a file"):
        discovery.plan([tmp_path / "a.jpg"], tmp_path / "file", ENDINGS)


@pytest.mark.usefixtures("locked")
def test_plan_directory_that_cannot_be_searched_is_a_refused_job(tmp_path):
    touch(tmp_path, "in/a.jpg", "in/locked/b.jpg", "in/sub/locked/c.jpg", "in/z.jpg")
    selection = Selection(include=("*.jpg",))
    plan = discovery.plan([tmp_path / "in"], tmp_path / "out", ENDINGS, selection=selection)
    assert pairs(plan, tmp_path) == [
        (f"in/{name}", f"out/{name}") for name in ("a.jpg", "locked", "sub/locked", "z.jpg")
    ]
    reason = "cannot search it: Permission denied"
    assert [job.refused for job in plan.jobs] == [None, reason, reason, None]
    assert discovery.find([tmp_path / "in"], ENDINGS) == ({job.source: job.refused for job in plan.jobs}, [])
    excluded = discovery.plan(
        [tmp_path / "in"], tmp_path / "out", ENDINGS, selection=Selection(exclude=("locked",))
    )
    assert [job.source.name for job in excluded.jobs] == ["a.jpg", "z.jpg"]


@pytest.mark.usefixtures("locked")
@pytest.mark.parametrize("pattern", ["in/**/*.jpg", "in/*/*.jpg", "i*/*/*", "in/**"])
def test_plan_directory_below_a_pattern_that_cannot_be_searched_is_a_refused_job(
    tmp_path, monkeypatch, pattern
):
    touch(tmp_path, "in/sub/a.jpg", "in/locked/b.jpg")
    for given in (tmp_path / pattern, Path(pattern)):
        monkeypatch.chdir(tmp_path)
        plan = discovery.plan([given], tmp_path / "out", ENDINGS)
        refused = {job.source.name: job.refused for job in plan.jobs}
        assert refused == {"a.jpg": None, "locked": "cannot search it: Permission denied"}


@pytest.mark.parametrize(("length", "refused"), [(251, False), (252, True)])
def test_plan_output_with_too_long_a_name_is_a_refused_job(tmp_path, length, refused):
    names = ("x" * (length - 4) + ".gif", "x" * 251 + ".jpg")
    touch(tmp_path, *(f"in/{name}" for name in names))
    plan = discovery.plan([tmp_path / "in"], tmp_path / "out", ENDINGS | {".gif": ".png"})
    reason = "its output's name would be longer than 255 bytes; rename it" if refused else None
    assert {job.source.name: job.refused for job in plan.jobs} == {names[0]: reason, names[1]: None}


@pytest.mark.usefixtures("locked")
def test_plan_input_that_cannot_be_searched_is_wrong_usage(tmp_path):
    touch(tmp_path, "locked/a.jpg")
    with pytest.raises(UsageError, match=r"/locked: Permission denied"):
        discovery.plan([tmp_path / "locked"], tmp_path / "out", ENDINGS)


def test_plan_directory_without_a_known_inode_is_searched(tmp_path, monkeypatch):
    touch(tmp_path, "in/a.jpg", "in/sub/b.jpg")
    inode = filesystem.inode
    monkeypatch.setattr(filesystem, "inode", lambda path: None if path.name == "sub" else inode(path))
    plan = discovery.plan([tmp_path / "in"], tmp_path / "out", ENDINGS)
    assert pairs(plan, tmp_path) == [("in/a.jpg", "out/a.jpg"), ("in/sub/b.jpg", "out/sub/b.jpg")]


def test_plan_includes_a_link_to_itself(tmp_path):
    touch(tmp_path, "in/a.png")
    (tmp_path / "in/loop.png").symlink_to("loop.png")
    found = discovery.plan([tmp_path / "in"], tmp_path / "out", ENDINGS)
    assert [job.source.name for job in found.jobs] == ["a.png", "loop.png"]


def test_plan_refuses_impossible_names(tmp_path):
    touch(tmp_path, "a.png")
    with pytest.raises(UsageError, match="too long"):
        discovery.plan([tmp_path / "a.png"], tmp_path / ("x" * 300), ENDINGS)
    with pytest.raises(UsageError, match=r"does not end in one of \.jpg, \.png"):
        discovery.plan([tmp_path / "a.png"], tmp_path / "out.gif", ENDINGS)


def test_selection_patterns_include_and_exclude(tmp_path):
    touch(tmp_path / "in", "a.jpg", "b.png", "1950/c.jpg", "1950/d.png", "1960/c.jpg", "notes.txt")

    def taken(**patterns) -> list[str]:
        selection = Selection(**patterns)
        plan = discovery.plan([tmp_path / "in"], tmp_path / "out", ENDINGS, selection=selection)
        return [str(job.source.relative_to(tmp_path / "in")) for job in plan.jobs]

    assert taken(include=("*.jpg",)) == ["1950/c.jpg", "1960/c.jpg", "a.jpg"]
    assert taken(include=("1950/*", "b.*")) == ["1950/c.jpg", "1950/d.png", "b.png"]
    assert taken(exclude=("1950",)) == ["1960/c.jpg", "a.jpg", "b.png"]
    assert taken(exclude=("c.*", "1950/*")) == ["a.jpg", "b.png"]
    assert taken(include=("*.jpg",), exclude=("19*/*",)) == ["a.jpg"]


def test_plan_of_an_existing_name_is_not_a_pattern(tmp_path):
    touch(tmp_path, "[a].jpg", "a.jpg", "b.jpg", "deep/er/c.jpg")
    for pattern, found in (
        ("[a].jpg", ["[a].jpg"]),
        ("[ab].jpg", ["a.jpg", "b.jpg"]),
        ("**/c.jpg", ["c.jpg"]),
        ("**/er/**/*.jpg", ["c.jpg"]),
        ("d*/**", ["c.jpg"]),
        ("**/*.jpg", ["[a].jpg", "a.jpg", "b.jpg", "c.jpg"]),
    ):
        plan = discovery.plan([tmp_path / pattern], tmp_path / "out", ENDINGS)
        assert [job.source.name for job in plan.jobs] == found
    with pytest.raises(UsageError, match=r"no such file or directory: .*x\*\.jpg"):
        discovery.plan([tmp_path / "x*.jpg"], tmp_path / "out", ENDINGS)


def test_plan_of_a_list_keeps_its_directories(tmp_path, monkeypatch):
    touch(tmp_path / "work", "a.jpg", "deep/b.jpg", "notes.txt")
    touch(tmp_path, "c.jpg")
    monkeypatch.chdir(tmp_path / "work")
    listed = [Path("deep/../a.jpg"), Path("./deep/b.jpg"), Path("deep"), Path("notes.txt"), Path("../c.jpg")]
    plan = discovery.plan([], Path("../out"), ENDINGS, listed=[*listed, tmp_path / "work" / "absent.jpg"])
    names = [str(job.destination) for job in plan.jobs]
    assert names == [f"../out/{n}" for n in ("a.jpg", "deep/b.jpg", "notes.txt", "c.jpg", "absent.jpg")]
    reason = "a directory in the list is not searched (1 such directories)"
    assert left_out(plan) == [(Path("deep"), reason, None)]


def test_read_list_splits_lines_or_nul_terminated_names():
    lines = io.BytesIO(b"a b.jpg\n\nc\xff.jpg\n-\n")
    assert discovery.read_list(lines, nul=False) == [
        Path("a b.jpg"),
        Path(os.fsdecode(b"c\xff.jpg")),
        Path.cwd() / "-",
    ]
    assert discovery.read_list(io.BytesIO(b"a\nb.jpg\0c.jpg"), nul=True) == [Path("a\nb.jpg"), Path("c.jpg")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("line_break", ["\n", "\r\n"])
def test_read_list_with_line_breaks_or_encoding_of_windows_gives_the_names(encoding, line_break):
    names = ["a b.jpg", "caf\u00e9.jpg", "\u5199\U0001f4f7.png", "s3://bucket/a.jpg"]
    for end in ("", line_break, 2 * line_break):
        content = (line_break.join(names) + end).encode(encoding)
        found = discovery.read_list(io.BytesIO(content), nul=False)
        assert [str(each) for each in found] == names
    exact = b"\xef\xbb\xbfa.jpg\0b.jpg\r\0"
    assert discovery.read_list(io.BytesIO(exact), nul=True) == [Path("\ufeffa.jpg"), Path("b.jpg\r")]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_read_list_cut_off_within_a_character_is_refused(encoding):
    content = "\ufeffa.jpg\n".encode(encoding)[:-1]
    with pytest.raises(
        UsageError, match=r"^the list of files is cut off: it ends within a UTF-16 character$"
    ):
        discovery.read_list(io.BytesIO(content), nul=False)


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_shards_are_disjoint_and_complete(tmp_path, parts):
    touch(tmp_path / "in", *(f"{i}/{i}.jpg" for i in range(60)))
    whole = discovery.plan([tmp_path / "in"], tmp_path / "out", ENDINGS).jobs
    shards = [
        discovery.plan(
            [tmp_path / "in"], tmp_path / "out", ENDINGS, selection=Selection(shard=(i + 1, parts))
        ).jobs
        for i in range(parts)
    ]
    assert sorted((job for shard in shards for job in shard), key=lambda j: int(j.source.stem)) == sorted(
        whole, key=lambda j: int(j.source.stem)
    )
    assert min(map(len, shards)) > 60 / parts / 3


def test_shards_are_independent_of_the_folder(tmp_path):
    for home in ("here", "there"):
        touch(tmp_path / home, *(f"{i}.jpg" for i in range(30)))
    names = [
        [job.source.name for job in plan.jobs]
        for home in ("here", "there")
        for plan in [
            discovery.plan([tmp_path / home], tmp_path / "out", ENDINGS, selection=Selection(shard=(1, 2)))
        ]
    ]
    assert names[0] == names[1]


def test_plan_refuses_outputs_outside_by_a_link(tmp_path):
    touch(tmp_path, "in/sub/a.jpg", "elsewhere/keep")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="outside"):
        discovery.plan([tmp_path / "in"], tmp_path / "out", ENDINGS)


def test_plan_of_a_stream_is_one_job(tmp_path):
    touch(tmp_path, "a.jpg")
    for inputs, output in (
        ([STREAM], STREAM),
        ([STREAM], tmp_path / "b.png"),
        ([tmp_path / "a.jpg"], STREAM),
    ):
        assert discovery.plan(inputs, output, ENDINGS) == Plan((Job(inputs[0], output),), (), None)
    for inputs, output in (([STREAM, STREAM], STREAM), ([STREAM], tmp_path), ([tmp_path], STREAM)):
        with pytest.raises(UsageError):
            discovery.plan(inputs, output, ENDINGS)


def test_find_follows_the_rules_of_plan(tmp_path):
    touch(tmp_path / "in", "b.jpg", "a.PNG", "sub/c.jpg", "notes.txt", ".hidden.jpg", ".git/d.jpg")
    touch(tmp_path, "named.xyz", "x1.tif", "x2.tif")
    inputs = [tmp_path / name for name in ("named.xyz", "in", "x*.tif", "in/b.jpg")]
    found, ignored = discovery.find(inputs, ENDINGS)
    names = [str(path.relative_to(tmp_path)) for path in found]
    assert names == ["named.xyz", "in/a.PNG", "in/b.jpg", "in/sub/c.jpg", "x1.tif", "x2.tif"]
    assert set(found.values()) == {None}
    assert [(each.job.source, each.ignored) for each in ignored] == [(tmp_path / "in", {".txt": 1})]
    with pytest.raises(UsageError, match=r"no such file or directory: .*absent"):
        discovery.find([tmp_path / "absent"], ENDINGS)


class Folding(LocalStorage):
    """Finds files by names that differ in case, or in the form of accents."""

    def __init__(self, *, case: bool, form: bool) -> None:
        super().__init__()
        self._fold = partial(discovery._folded, case=case, form=form)

    def entry(self, location):
        for path in location.parent.iterdir() if location.parent.is_dir() else ():
            if self._fold(path.name) == self._fold(location.name):
                return super().entry(path)
        return super().entry(location)


def storages_of(storage: LocalStorage) -> Storages:
    storages = Storages()
    storages._local = storage
    return storages


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize(
    ("names", "case", "form"),
    [
        (("IMG.JPG", "img.jpg"), True, False),
        (("Sub/a.jpg", "sub/A.jpg"), True, False),
        (("caf\u00e9.jpg", "cafe\u0301.jpg"), False, True),
        (("CAF\u00c9.jpg", "cafe\u0301.jpg"), True, True),
    ],
)
def test_plan_names_that_the_output_directory_folds_are_refused(tmp_path, names, case, form, exists):
    source = touch(tmp_path / "in", *names)
    output = tmp_path / "out"
    if exists:
        output.mkdir()
    one, two = sorted(names)
    with pytest.raises(UsageError) as raised:
        discovery.plan([source], output, ENDINGS, storages=storages_of(Folding(case=case, form=form)))
    assert str(raised.value) == (
        f"{source}/{one} and {source}/{two} would both become {output}/{two},"
        f" as the file system of {output} does not tell their names apart; rename one"
    )
    for storage in (LocalStorage(), Folding(case=not case, form=not form)):
        if (case, form) != (True, True) or type(storage) is LocalStorage:
            plan = discovery.plan([source], output, ENDINGS, storages=storages_of(storage))
            assert [job.destination for job in plan.jobs] == [output / one, output / two]
    assert output.exists() == exists
    assert sorted(path.name for path in tmp_path.rglob("*colorize*")) == []


def test_plan_output_whose_name_folds_to_the_input_is_refused(tmp_path):
    source = touch(tmp_path, "a.jpg") / "a.jpg"
    storages = storages_of(Folding(case=True, form=True))
    with pytest.raises(UsageError, match=r"a\.jpg would replace the input .*a\.jpg"):
        discovery.plan([source], tmp_path / "A.JPG", ENDINGS, storages=storages)
    assert len(discovery.plan([source], tmp_path / "A.JPG", ENDINGS).jobs) == 1


def test_plan_without_names_that_could_fold_writes_nothing(tmp_path, monkeypatch):
    source = touch(tmp_path / "in", "a.jpg", "b.jpg", "A.png")
    monkeypatch.setattr(LocalStorage, "write", lambda *_: pytest.fail("written"))
    assert len(discovery.plan([source], tmp_path / "out", ENDINGS).jobs) == 3


def test_plan_interrupted_while_it_tries_names_leaves_no_file(tmp_path):
    touch(tmp_path / "in", "a.jpg", "A.jpg")
    code = """
import os, signal, sys
from colorize_cli import __main__
from colorize_cli.storage.filesystem import LocalStorage

write = LocalStorage.write

def interrupted(*arguments):
    write(*arguments)
    os.kill(os.getpid(), signal.SIGTERM)

LocalStorage.write = interrupted
sys.argv[1:] = ["in", "out"]
__main__.main()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_plan_where_nothing_can_be_written_keeps_both(tmp_path, monkeypatch):
    source = touch(tmp_path / "in", "a.jpg", "A.jpg")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(LocalStorage, "write", refuse)
    assert len(discovery.plan([source], tmp_path / "out", ENDINGS).jobs) == 2


def test_plan_files_of_other_kinds_are_counted_by_ending(tmp_path):
    touch(tmp_path / "in", "a.DNG", "b.dng", "sub/c.dng", "sub/d.pdf", "README", "e.jpg")
    touch(tmp_path / "more", *(f"a.{number:02}" for number in range(12)), "b.00")
    plan = discovery.plan([tmp_path / "in", tmp_path / "more"], tmp_path / "out", ENDINGS)
    many = {f".{number:02}": 1 for number in range(12)}
    endings = ", ".join(f"{ending} 1" for ending in list(many)[1:10])
    assert left_out(plan) == [
        (
            tmp_path / "in",
            "files of other kinds ignored: .dng 3, without ending 1, .pdf 1",
            {".dng": 3, ".pdf": 1, "": 1},
        ),
        (
            tmp_path / "more",
            f"files of other kinds ignored: .00 2, {endings}, others 2",
            many | {".00": 2},
        ),
    ]
    assert {each.job.destination for each in plan.left_out} == {tmp_path / "out"}
    excluded = discovery.plan(
        [tmp_path / "in"],
        tmp_path / "out",
        ENDINGS,
        selection=Selection(include=("*.jpg", "*.pdf"), exclude=("sub",)),
    )
    assert excluded.left_out == ()


def test_plan_finds_the_hints_beside_files(tmp_path):
    folder = touch(tmp_path / "in", "a.jpg", "sub/a.jpg", "sub/b.png", "c.jpg.hints.json", "notes.json")
    hints = [folder / "sub" / f"{name}.hints.json" for name in ("a.jpg", "b.png")]
    for path in (*hints, folder / "sub" / "film.mp4.hints.json.d" / "x.txt.hints.json"):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    plan = discovery.plan([folder], tmp_path / "out", ENDINGS)
    assert [(job.source.name, job.hints) for job in plan.jobs] == [
        ("a.jpg", None),
        ("a.jpg", hints[0]),
        ("b.png", hints[1]),
    ]
    ignored = {".hints.json": 2, ".json": 1}
    assert left_out(plan) == [(folder, "files of other kinds ignored: .hints.json 2, .json 1", ignored)]
    selection = Selection(include=("a.*",), exclude=("*.png",))
    plan = discovery.plan([folder], tmp_path / "out", ENDINGS, selection=selection)
    assert [job.hints for job in plan.jobs] == [None, hints[0]]
    assert left_out(plan) == []


def test_plan_of_named_files_finds_the_hints_beside_them(tmp_path):
    folder = touch(tmp_path / "in", "a.jpg", "a.jpg.hints.json", "b.jpg", "x.jpg.hints.json", "y" * 250)
    (folder / "b.jpg.hints.json").mkdir()
    hints = folder / "a.jpg.hints.json"
    for arguments in (
        {"inputs": sorted(folder.glob("?.jpg*")), "listed": []},
        {"inputs": [folder / "?.jpg"], "listed": [folder / "x.jpg.hints.json"]},
        {"inputs": [], "listed": sorted(folder.glob("?.jpg*"))},
    ):
        inputs = [path for path in arguments.pop("inputs") if path.name != "b.jpg.hints.json"]
        plan = discovery.plan(inputs, tmp_path / "out", ENDINGS, **arguments)
        jobs = {job.source.name: job.hints for job in plan.jobs}
        assert jobs == {"a.jpg": hints, "b.jpg": None, "x.jpg.hints.json": None}
    (long,) = discovery.plan([folder / ("y" * 250)], tmp_path / "out", ENDINGS).jobs
    assert long.hints is None


EARLIER = "left out, as it holds outputs of an earlier run; give it as an input to include it"


def test_plan_files_of_systems_and_earlier_outputs_are_left_out(tmp_path):
    source = touch(
        tmp_path / "in",
        "a.jpg",
        "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg",
        ".AppleDouble/a.jpg",
        "Thumbs.db",
        ".DS_Store",
        "sub/thumbs.db",
        "sub/b.jpg",
        "sub/colored/.colorize/1.jsonl",
        "sub/colored/c.jpg",
        "sub/colored/deep/d.jpg",
        "killed/.colorize/film-1/2.jsonl",
        "killed/e.jpg",
        "out/.colorize/1.jsonl",
        "out/a.jpg",
    )
    plan = discovery.plan([source], source / "out", ENDINGS)
    assert [str(job.source.relative_to(source)) for job in plan.jobs] == [
        "a.jpg",
        "killed/e.jpg",
        "sub/b.jpg",
    ]
    assert left_out(plan) == [(source / "sub/colored", EARLIER, None)]
    named = discovery.plan([source / "sub/colored"], tmp_path / "out", ENDINGS)
    assert [job.source.name for job in named.jobs] == ["c.jpg", "d.jpg"]
    assert named.left_out == ()

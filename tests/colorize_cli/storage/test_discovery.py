import io
import os
from pathlib import Path

import pytest

from colorize_cli.core.errors import UsageError
from colorize_cli.core.jobs import Job, Plan
from colorize_cli.core.location import STREAM
from colorize_cli.storage import discovery
from colorize_cli.storage.discovery import Selection

ENDINGS = {".jpg": ".jpg", ".png": ".png"}


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def pairs(plan: Plan, root: Path) -> list[tuple[str, str]]:
    return [(str(j.source.relative_to(root)), str(j.destination.relative_to(root))) for j in plan.jobs]


def test_plan_of_a_tree_keeps_and_sorts_it(tmp_path):
    touch(tmp_path / "in", "b.jpg", "a.PNG", "sub/deep/c.jpg", "notes.txt", ".hidden.jpg", ".git/d.jpg")
    plan = discovery.plan([tmp_path / "in"], tmp_path / "out", ENDINGS)
    assert pairs(plan, tmp_path) == [
        ("in/a.PNG", "out/a.PNG"),
        ("in/b.jpg", "out/b.jpg"),
        ("in/sub/deep/c.jpg", "out/sub/deep/c.jpg"),
    ]
    assert plan.ignored == 1


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


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_plan_refuses_an_unsearchable_directory(tmp_path):
    touch(tmp_path, "in/sub/a.jpg")
    (tmp_path / "in" / "sub").chmod(0)
    with pytest.raises(UsageError, match="cannot search"):
        discovery.plan([tmp_path / "in"], tmp_path / "out", ENDINGS)


def test_plan_includes_a_link_to_itself(tmp_path):
    touch(tmp_path, "in/a.png")
    (tmp_path / "in/loop.png").symlink_to("loop.png")
    found = discovery.plan([tmp_path / "in"], tmp_path / "out", ENDINGS)
    assert [job.source.name for job in found.jobs] == ["a.png", "loop.png"]


def test_plan_refuses_impossible_names(tmp_path):
    touch(tmp_path, "a.png")
    with pytest.raises(UsageError, match="too long"):
        discovery.plan([tmp_path / ("x" * 300)], tmp_path / "out", ENDINGS)
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
    assert plan.ignored == 1


def test_read_list_splits_lines_or_nul_terminated_names():
    lines = io.BytesIO(b"a b.jpg\n\nc\xff.jpg\n-\n")
    assert discovery.read_list(lines, nul=False) == [
        Path("a b.jpg"),
        Path(os.fsdecode(b"c\xff.jpg")),
        Path.cwd() / "-",
    ]
    assert discovery.read_list(io.BytesIO(b"a\nb.jpg\0c.jpg"), nul=True) == [Path("a\nb.jpg"), Path("c.jpg")]


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
        assert discovery.plan(inputs, output, ENDINGS) == Plan((Job(inputs[0], output),), 0, None)
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
    assert ignored == 1
    with pytest.raises(UsageError, match=r"no such file or directory: .*absent"):
        discovery.find([tmp_path / "absent"], ENDINGS)

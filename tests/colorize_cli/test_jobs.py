import os
from pathlib import Path

import pytest

from colorize_cli import jobs
from colorize_cli.errors import UsageError

SUFFIXES = {".jpg", ".png"}


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def pairs(plan: jobs.Plan, root: Path) -> list[tuple[str, str]]:
    return [(str(j.source.relative_to(root)), str(j.destination.relative_to(root))) for j in plan.jobs]


def test_a_tree_is_kept_and_sorted(tmp_path):
    touch(tmp_path / "in", "b.jpg", "a.PNG", "sub/deep/c.jpg", "notes.txt", ".hidden.jpg", ".git/d.jpg")
    plan = jobs.plan([tmp_path / "in"], tmp_path / "out", SUFFIXES)
    assert pairs(plan, tmp_path) == [
        ("in/a.PNG", "out/a.PNG"),
        ("in/b.jpg", "out/b.jpg"),
        ("in/sub/deep/c.jpg", "out/sub/deep/c.jpg"),
    ]
    assert plan.ignored == 1


def test_one_file_to_a_file(tmp_path):
    touch(tmp_path, "a.jpg")
    plan = jobs.plan([tmp_path / "a.jpg"], tmp_path / "new" / "b.png", SUFFIXES)
    assert pairs(plan, tmp_path) == [("a.jpg", "new/b.png")]


def test_one_file_into_a_directory(tmp_path):
    touch(tmp_path, "a.jpg")
    (tmp_path / "dir.png").mkdir()
    for output in ("out", "dir.png"):
        plan = jobs.plan([tmp_path / "a.jpg"], tmp_path / output, SUFFIXES)
        assert pairs(plan, tmp_path) == [("a.jpg", f"{output}/a.jpg")]


def test_a_named_file_of_an_unknown_kind_is_a_job(tmp_path):
    touch(tmp_path, "a.xyz", "b.jpg")
    plan = jobs.plan([tmp_path / "a.xyz", tmp_path / "b.jpg"], tmp_path / "out", SUFFIXES)
    assert [job.source.name for job in plan.jobs] == ["a.xyz", "b.jpg"]


def test_the_same_input_twice_is_one_job(tmp_path):
    touch(tmp_path / "in", "a.jpg")
    plan = jobs.plan([tmp_path / "in", tmp_path / "in" / "a.jpg"], tmp_path / "out", SUFFIXES)
    assert len(plan.jobs) == 1


def test_links_are_followed_and_loops_are_not(tmp_path):
    touch(tmp_path, "in/a.jpg", "elsewhere/b.jpg")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "in")
    plan = jobs.plan([tmp_path / "in"], tmp_path / "out", SUFFIXES)
    assert pairs(plan, tmp_path) == [("in/a.jpg", "out/a.jpg"), ("in/link/b.jpg", "out/link/b.jpg")]


def test_the_output_inside_the_input_is_not_searched(tmp_path):
    touch(tmp_path, "a.jpg", "out/a.jpg")
    plan = jobs.plan([tmp_path], tmp_path / "out", SUFFIXES)
    assert pairs(plan, tmp_path) == [("a.jpg", "out/a.jpg")]


def test_two_sources_with_one_destination_are_named(tmp_path):
    touch(tmp_path, "one/a.jpg", "two/a.jpg")
    with pytest.raises(UsageError) as raised:
        jobs.plan([tmp_path / "one", tmp_path / "two"], tmp_path / "out", SUFFIXES)
    assert str(tmp_path / "one/a.jpg") in str(raised.value)
    assert str(tmp_path / "two/a.jpg") in str(raised.value)


def test_a_collision_through_a_link_is_found(tmp_path):
    touch(tmp_path, "one/sub/a.jpg", "two/x/a.jpg", "out/sub/keep")
    (tmp_path / "out" / "x").symlink_to(tmp_path / "out" / "sub")
    with pytest.raises(UsageError, match="both"):
        jobs.plan([tmp_path / "one", tmp_path / "two"], tmp_path / "out", SUFFIXES)


@pytest.mark.parametrize("output", ["in", "in/../in", "link"])
def test_an_input_is_never_a_destination(tmp_path, output):
    touch(tmp_path, "in/a.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    with pytest.raises(UsageError, match="input"):
        jobs.plan([tmp_path / "in"], tmp_path / output, SUFFIXES)
    with pytest.raises(UsageError, match="input"):
        jobs.plan([tmp_path / "in" / "a.jpg"], tmp_path / output, SUFFIXES)


def test_a_destination_behind_a_linked_source_is_an_input(tmp_path):
    touch(tmp_path, "out/a.jpg")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").symlink_to(tmp_path / "out" / "a.jpg")
    with pytest.raises(UsageError, match="input"):
        jobs.plan([tmp_path / "in"], tmp_path / "out", SUFFIXES)


def test_what_is_missing_or_in_the_way(tmp_path):
    touch(tmp_path, "a.jpg", "b.jpg", "file")
    with pytest.raises(UsageError, match="no such file"):
        jobs.plan([tmp_path / "absent"], tmp_path / "out", SUFFIXES)
    with pytest.raises(UsageError, match="is a file"):
        jobs.plan([tmp_path / "a.jpg", tmp_path / "b.jpg"], tmp_path / "file", SUFFIXES)
    with pytest.raises(UsageError, match="is a file"):
        jobs.plan([tmp_path / "a.jpg"], tmp_path / "file", SUFFIXES)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_directory_that_cannot_be_searched(tmp_path):
    touch(tmp_path, "in/sub/a.jpg")
    (tmp_path / "in" / "sub").chmod(0)
    with pytest.raises(UsageError, match="cannot search"):
        jobs.plan([tmp_path / "in"], tmp_path / "out", SUFFIXES)


def test_a_link_to_itself_does_not_stop_the_folder(tmp_path):
    touch(tmp_path, "in/a.png")
    (tmp_path / "in/loop.png").symlink_to("loop.png")
    found = jobs.plan([tmp_path / "in"], tmp_path / "out", SUFFIXES)
    assert [job.source.name for job in found.jobs] == ["a.png", "loop.png"]


def test_what_the_system_refuses_is_wrong_usage(tmp_path):
    touch(tmp_path, "a.png")
    with pytest.raises(UsageError, match="too long"):
        jobs.plan([tmp_path / ("x" * 300)], tmp_path / "out", SUFFIXES)
    with pytest.raises(UsageError, match="ending"):
        jobs.plan([tmp_path / "a.png"], tmp_path / "out.gif", SUFFIXES)

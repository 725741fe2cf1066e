"""The check that a node must pass before it gets work."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from colorize_cli.core.errors import ModelError, UsageError
from colorize_cli.core.settings import Settings
from colorize_cli.engine.cluster.node_check import NodeCheck, prepared_check
from tests.helpers.models import write_model


@pytest.fixture
def source(tmp_path) -> Path:
    path = tmp_path / "in.png"
    path.write_bytes(b"a picture")
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    path = tmp_path / "out"
    path.mkdir()
    return path


@pytest.fixture
def check(models, source, folder) -> Iterator[NodeCheck]:
    with prepared_check(Settings(model=models.gray), folder, source) as check:
        yield check
    assert list(folder.iterdir()) == []


def test_node_with_the_same_files_passes_and_leaves_nothing(check):
    answer = check.examine()
    assert answer.read_bytes() == check.content
    check.confirm(answer)


def test_unconfirmed_answer_is_removed(models, source, folder):
    with prepared_check(Settings(model=models.gray), folder, source) as check:
        assert check.examine().parent == folder
    assert list(folder.iterdir()) == []


def another_output(check: NodeCheck) -> None:
    check.file.write_bytes(b"something else")


def no_output(check: NodeCheck) -> None:
    check.file.unlink()


def another_input(check: NodeCheck) -> None:
    check.source.write_bytes(b"another picture")


def no_input(check: NodeCheck) -> None:
    check.source.unlink()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (another_output, "sees a different output directory .*out; use a shared file system"),
        (no_output, "does not see .* in the output directory .*out; use a shared file system: No such file"),
        (another_input, "does not see the input .*in.png; .*: its content is different there"),
        (no_input, "does not see the input .*in.png; .*: No such file"),
    ],
)
def test_node_with_other_files_names_the_difference(check, change: Callable[[NodeCheck], None], said):
    change(check)
    with pytest.raises(UsageError, match=said):
        check.examine()


def test_other_version_or_model_is_named(check, tmp_path):
    with pytest.raises(UsageError, match=r"has colorize-cli .*, but this machine has 9.9"):
        dataclasses.replace(check, version="9.9").examine()
    other = write_model(tmp_path / "other.onnx", (1, 1), (0, 0))
    with pytest.raises(UsageError, match=r"has a different model .*other.onnx"):
        dataclasses.replace(check, settings=Settings(model=other)).examine()
    with pytest.raises(UsageError, match=r"cannot read the model .*absent.onnx"):
        dataclasses.replace(check, settings=Settings(model=tmp_path / "absent.onnx")).examine()


def test_answer_that_does_not_arrive_is_named(check):
    answer = check.examine()
    answer.write_bytes(b"torn")
    with pytest.raises(
        UsageError, match=r"writes a file to .*out that has different content on this machine"
    ):
        check.confirm(answer)
    with pytest.raises(UsageError, match=r"writes a file to .*out that this machine cannot read"):
        check.confirm(answer)


def test_input_unreadable_everywhere_is_accepted(models, tmp_path, folder):
    with prepared_check(Settings(model=models.gray), folder, tmp_path / "absent.png") as check:
        answer = check.examine()
        assert answer.read_bytes() == check.content
        check.confirm(answer)


def test_local_problems_are_raised_before_the_check(models, source, tmp_path, folder):
    with pytest.raises(UsageError, match=r"cannot write to the output directory .*gone"):
        prepared_check(Settings(model=models.gray), tmp_path / "gone", source).__enter__()
    with pytest.raises(ModelError):
        prepared_check(Settings(model=tmp_path / "absent.onnx"), folder, source).__enter__()
    assert list(folder.iterdir()) == []

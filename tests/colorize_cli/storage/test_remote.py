"""The guarantees of every remote store."""

import itertools
import pickle
import sys
import threading
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from colorize_cli.core.errors import ReadError, UsageError, WriteError
from colorize_cli.core.location import Url
from colorize_cli.storage import atomic
from colorize_cli.storage.filesystem import Fingerprint
from colorize_cli.storage.remote import MissingError, RemotePath, RemoteStorage
from colorize_cli.storage.retry import Patience

pytestmark = pytest.mark.usefixtures("environment")

PLACES = itertools.count()


class Files(LocalFileSystem):
    """A store that can rename: the local file system under another protocol."""

    protocol = "files"

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("files://"))


fsspec.register_implementation("files", Files, clobber=True)


@pytest.fixture(params=["s3", "memory", "files"])
def root(request, bucket, tmp_path) -> RemotePath:
    url = {
        "s3": f"{bucket.url}/root",
        "memory": f"memory://root-{next(PLACES)}",
        "files": f"files://{tmp_path}/root",
    }[request.param]
    return RemoteStorage(Patience(tries=3, first=0.001)).locate(Url(url))


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "file.png"
    path.write_bytes(b"content")
    return path


def test_empty_store_has_no_objects(root, tmp_path):
    assert root.file_system.info(root.path) is None
    assert not root.file_system.is_there(root.below("a").path)
    with pytest.raises(MissingError):
        root.file_system.read(root.below("a").path)
    root.file_system.remove([root.below("a").path])


def test_put_object_is_found_and_fetched(root, file, tmp_path):
    file_system = root.file_system
    put = file_system.put(file, root.below("sub/a b.png").path)
    file_system.write(root.below("b").path, b"")
    assert file_system.info(put.path) == put
    assert (put.size, put.is_directory) == (7, False)
    assert put.version
    assert {root.relative(found): found.size for found in file_system.find(root.path)} == {
        "sub/a b.png": 7,
        "b": 0,
    }
    assert put in file_system.find(root.path)
    assert file_system.is_there(put.path)
    assert file_system.is_there(root.below("b").path)
    assert file_system.info(root.path).is_directory
    assert file_system.fetch(put, tmp_path / "copy") == put
    assert (tmp_path / "copy").read_bytes() == file_system.read(put.path) == b"content"
    file_system.remove([put.path])
    assert file_system.info(put.path) is None
    with pytest.raises(MissingError):
        file_system.fetch(put, tmp_path / "copy")


def test_versions_differ_after_a_change(root, file):
    path = root.below("a.png").path
    first = root.file_system.put(file, path)
    file.write_bytes(b"another")
    second = root.file_system.put(file, path)
    assert first.size == second.size
    assert first.version != second.version
    assert Fingerprint.of(first) != Fingerprint.of(second) == Fingerprint.of(root.file_system.info(path))


def test_fetch_of_a_changed_object_is_complete(root, file, tmp_path):
    path = root.below("a.png").path
    listed = root.file_system.put(file, path)
    file.write_bytes(b"something longer")
    now = root.file_system.put(file, path)
    assert root.file_system.fetch(listed, tmp_path / "copy") == now
    assert (tmp_path / "copy").read_bytes() == b"something longer"


def test_match_finds_objects_by_pattern(root, file):
    for name in ("a1.png", "a2.png", "b.png", "sub/a3.png"):
        root.file_system.put(file, root.below(name).path)
    found = root.file_system.match(root.below("a*").path)
    assert [root.relative(each) for each in found] == ["a1.png", "a2.png"]


def test_contains_compares_whole_names(root):
    assert root.contains(root)
    assert root.contains(root.below("a/b"))
    assert not root.below("a").contains(root)
    assert not root.below("a").contains(root.below("ab"))
    assert str(root.below("a/b").url) == f"{root.url}/a/b"


def test_name_like_a_chained_url_is_located_in_another_process(root, file):
    """A worker that gets a job does the same."""
    url = root.url / "a::b.png"
    root.file_system.put(file, url.path)
    (entry,) = RemoteStorage().walk(root.url, None, lambda _: False)
    assert (entry.location, entry.name) == (url, "a::b.png")
    where = RemoteStorage().locate(pickle.loads(pickle.dumps(entry.location)))  # noqa: S301
    assert where.path == url.path
    assert where.file_system.read(where.path) == b"content"


def test_put_that_fails_leaves_no_partial_file(tmp_path, file, monkeypatch):
    root = RemoteStorage(Patience(tries=1)).locate(Url(f"files://{tmp_path}/root"))
    copied = []

    def put_file(_, source, destination, **__):
        Path(destination).write_bytes(b"con")
        copied.append(destination)
        raise ConnectionResetError

    monkeypatch.setattr(Files, "put_file", put_file)
    with pytest.raises(WriteError, match="cannot write it"):
        root.file_system.put(file, root.below("a.png").path)
    assert atomic.is_left_over(Path(copied[0]).name)
    assert root.file_system.find(root.path) == []


def test_find_in_an_unlistable_directory_is_an_error(tmp_path, file, monkeypatch):
    root = RemoteStorage(Patience(tries=2, first=0.001)).locate(Url(f"files://{tmp_path}/root"))
    root.file_system.put(file, root.below("sub/a.png").path)
    ls, asked = Files.ls, []

    def failing(self, path, **options):
        if path.endswith("sub"):
            asked.append(path)
            raise PermissionError(13, "Permission denied")
        return ls(self, path, **options)

    monkeypatch.setattr(Files, "ls", failing)
    with pytest.raises(ReadError, match="Permission denied"):
        root.file_system.find(root.path)
    assert len(asked) == 1


def test_store_can_be_shared_by_threads(bucket, file, tmp_path):
    root = RemoteStorage().locate(Url(f"{bucket.url}/root"))
    errors = []

    def work(number: int) -> None:
        try:
            found = root.file_system.put(file, root.below(f"{number}.png").path)
            root.file_system.fetch(found, tmp_path / f"{number}")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(root.file_system.find(root.path)) == 8


@pytest.mark.parametrize(
    ("url", "absent", "text"),
    [
        ("s3://b/a", "fsspec", "s3://b/a: to use remote stores, pip install 'colorize-cli[remote]'"),
        ("s3://b/a", "s3fs", "s3://b/a: Install s3fs to access S3 (pip install 'colorize-cli[remote]')"),
        ("sftp://b/a", "paramiko", 'sftp://b/a: SFTPFileSystem requires "paramiko" to be installed'),
        ("nothing://b/a", None, "nothing://b/a: Protocol not known: nothing"),
    ],
)
def test_missing_package_is_named_in_one_line(monkeypatch, url, absent, text):
    if absent is not None:
        for name in [name for name in sys.modules if name.partition(".")[0] == absent]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, absent, None)
    if absent == "s3fs":
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    with pytest.raises(UsageError) as raised:
        RemoteStorage().locate(Url(url))
    assert str(raised.value) == text


def test_fsspec_configuration_of_the_user_is_used(monkeypatch):
    monkeypatch.setitem(
        fsspec.config.conf, "s3", {"max_concurrency": 3, "config_kwargs": {"read_timeout": 9}}
    )
    files = RemoteStorage().locate(Url("s3://bucket/a")).file_system._files
    assert files.max_concurrency == 3
    assert files.config_kwargs == {"read_timeout": 9, "retries": {"total_max_attempts": 1}}
    assert files.retries == 1


def test_fetch_to_a_full_disk_names_the_directory(root, file, tmp_path, monkeypatch):
    found = root.file_system.put(file, root.below("a.png").path)

    def get_file(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(root.file_system._files), "get_file", get_file)
    if root.url.text.startswith("s3"):
        monkeypatch.setattr(root.file_system._files, "get_file", get_file)
    with pytest.raises(ReadError, match=f"no space for a copy in {tmp_path}: No space left on device"):
        root.file_system.fetch(found, tmp_path / "copy")

"""Objects in remote stores, through fsspec: listing, complete downloads and uploads, retries.

This is the only module that uses fsspec. The libraries below it find credentials by themselves (environment,
profiles, metadata services). This program neither accepts nor shows any. The retries of the libraries are
disabled where they would multiply with those of `retry`.
"""

import contextlib
import errno
import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from glob import has_magic
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from colorize_cli.core.errors import ReadError, UsageError, WriteError, one_line
from colorize_cli.core.jobs import FileInfo
from colorize_cli.core.location import Url, redacted
from colorize_cli.storage import atomic
from colorize_cli.storage.filesystem import DIRECTORY, DOT_PARTS, MANIFEST_SUFFIX, Entry, is_hidden
from colorize_cli.storage.retry import Patience, Retrier, explained, is_missing, is_transient

T = TypeVar("T")

# The stores' names for the version of an object, the most reliable first.
_VERSIONS = ("ETag", "etag", "generation", "md5Hash", "Content-MD5", "mtime", "LastModified", "Last-Modified")
_LESS_RELIABLE = ("last_modified", "updated", "modified", "modify", "created")
# Object stores. Some of them claim that they can rename.
_OBJECT_STORES = frozenset({"abfs", "az", "gcs", "gs", "memory", "oss", "s3"})
# Schemes whose libraries the extra installs.
_IN_EXTRA = frozenset({"gcs", "gs", "http", "https", "s3", "s3a"})
_INSTALL = "pip install 'colorize-cli[remote]'"
_FULL = (errno.ENOSPC, errno.EDQUOT)
# Characters that stay unescaped in a web URL. A % belongs to an existing escape.
_UNESCAPED = "%/:?#[]@!$&'()*+,;=~"
MOST_UNKNOWN = 2 << 30  # bytes of an object without a size that are fetched at most
_CONNECT_TIMEOUT, _READ_TIMEOUT = 10, 30  # seconds without an answer from a web server


class MissingError(ReadError):
    """The object does not exist, or no longer exists."""


class _LongerError(ConnectionError):
    """More bytes of an object arrive than the store announced."""


class RemoteStorage:
    """The files of all stores of a run, each in a `FileSystem`."""

    def __init__(self, patience: Patience | None = None) -> None:
        """Create an empty collection.

        Args:
            patience: Limits of the retries; None for the defaults.
        """
        self._retrier = Retrier(patience or Patience())
        self._known: dict[str, FileSystem] = {}
        self._located: dict[str, FileSystem] = {}

    def locate(self, url: Url) -> "RemotePath":
        """Return the store and the path of a URL, without checking that anything exists there.

        Raises:
            UsageError: fsspec, or the library that it needs for the scheme, is not installed; or the scheme
                is unknown.
        """
        base, inside = url.text, (url.path or "").lstrip("/")
        if inside and not url.is_web and base.endswith(inside):
            # The path may hold characters that fsspec would interpret, so it gets only the first part.
            base = f"{base.removesuffix(inside)}{inside.partition('/')[0]}"
            if (known := self._located.get(base)) is not None:
                return RemotePath(known, url)
        try:
            from fsspec.core import url_to_fs
        except ImportError as error:
            raise UsageError(f"{url}: to use remote stores, {_INSTALL}") from error
        text = quote(base, safe=_UNESCAPED) if url.is_web else base
        try:
            files, path = url_to_fs(text, **_options(url))
        except ImportError as error:
            raise UsageError(f"{url}: {one_line(error)}{_hint(url)}") from error
        except Exception as error:  # any error of a library about its configuration
            raise UsageError(f"{url}: {redacted(one_line(error))}") from error
        file_system = FileSystem(files, self._retrier)
        file_system = self._known.setdefault(file_system.identity, file_system)
        if base != url.text:
            self._located[base] = file_system
        if url.path is None:
            url = replace(url, path=path if url.is_web else path.rstrip("/"))
        return RemotePath(file_system, url)

    def entry(self, location: Url) -> Entry | None:
        """Return the object or directory at a URL."""
        where = self.locate(location)
        with _naming(location):
            info = where.file_system.info(where.path)
        return None if info is None else Entry(where.url, location.name, info.is_directory, info)

    def glob(self, pattern: Url) -> list[Entry]:
        """Return what matches a pattern; nothing for web URLs, whose servers do not list their files."""
        where = self.locate(pattern)
        if pattern.is_web or not has_magic(where.path):
            return []
        with _naming(pattern):
            matches = where.file_system.match(where.path)
        parts = where.path.split("/")
        depth = next(index for index, part in enumerate(parts) if has_magic(part))
        above = replace(pattern.above(len(parts) - depth), path="/".join(parts[:depth]))
        directory = RemotePath(where.file_system, above)
        found = [(above / directory.relative(info), info) for info in matches]
        return [Entry(url, url.name, info.is_directory, info) for url, info in found]

    def walk(self, directory: Url, output: Url | None, excludes: Callable[[str], bool]) -> Iterator[Entry]:
        """Yield the objects below a directory. It is listed once."""
        where = self.locate(directory)
        left_out = None if output is None else self.locate(output)
        unlisted: dict[str, ReadError] = {}
        with _naming(directory):
            objects = where.file_system.find(where.path, unlisted)
        manifests = (where.relative(info).split("/") for info in objects)
        earlier = {
            "/".join(parts[:-2])
            for parts in manifests
            if len(parts) > 2 and parts[-2] == DIRECTORY and parts[-1].endswith(MANIFEST_SUFFIX)
        }
        directories = [*unlisted, *(where.below(name).path for name in earlier)]
        objects += [FileInfo(path, is_directory=True, size=None, version=None) for path in directories]
        for info in sorted(objects, key=lambda info: info.path.split("/")):
            name = where.relative(info)
            parts = name.split("/")
            if not parts[-1] or any(is_hidden(part) and part not in DOT_PARTS for part in parts):
                continue
            if left_out is not None and left_out.contains(where.below(name)):
                continue
            if any("/".join(parts[:end]) in earlier for end in range(1, len(parts))):
                continue
            if not any(excludes("/".join(parts[: end + 1])) for end in range(len(parts))):
                error = f"cannot search it: {unlisted[info.path]}" if info.path in unlisted else None
                yield Entry(where.url / name, name, info.is_directory, info, error)

    def identity(self, location: Url) -> str:
        """Return a text that distinguishes an object from others, in all stores."""
        return self.locate(location).identity

    def may_fold(self, location: Url) -> bool:
        """Return True if the store has files, as a server of SFTP. Object stores tell all names apart."""
        return self.locate(location).file_system.has_files

    def nearest(self, directory: Url) -> Url:
        """Return the directory if it exists, otherwise the nearest one above that does."""
        where = self.locate(directory)
        while "/" in where.path.strip("/") and where.file_system.info(where.path) is None:
            where = self.locate(where.url.above(1))
        return where.url

    def read(self, location: Url, size: int | None = None) -> bytes:
        """Return the first `size` bytes of an object, or all."""
        where = self.locate(location)
        return where.file_system.read(where.path, size)

    def write(self, location: Url, content: bytes) -> None:
        """Write a small object, completely or not at all."""
        where = self.locate(location)
        where.file_system.write(where.path, content)

    def remove(self, locations: Iterable[Url]) -> None:
        """Remove objects. Those that do not exist are ignored."""
        for where in map(self.locate, locations):
            where.file_system.remove([where.path])

    def remove_below(self, directory: Url, beginning: str) -> None:
        """Remove the objects in a directory whose names begin so. Those that cannot be removed stay."""
        where = self.locate(directory)
        with contextlib.suppress(ReadError):
            found = [info.path for info in where.file_system.find(where.path)]
            where.file_system.remove(path for path in found if path.rpartition("/")[2].startswith(beginning))

    def stop(self) -> None:
        """Stop all retries from now on."""
        self._retrier.stop()


class FileSystem:
    """A file system of fsspec, with retries. May be used from several threads."""

    def __init__(self, files: Any, retrier: Retrier) -> None:
        from fsspec.asyn import AsyncFileSystem
        from fsspec.spec import AbstractFileSystem

        kind = type(files)
        self._shared = files
        self._retrier = retrier
        if "s3" in _schemes(files):  # s3fs retries too, with a number that is not an option
            files.retries = 1
        # Stores that can rename have files, which are visible while they are partially written. Objects are
        # visible only when they are complete.
        self.has_files = kind.mv is not AbstractFileSystem.mv and not _OBJECT_STORES.intersection(
            _schemes(files)
        )
        # fsspec would walk stores without a recursive listing, and would skip directories that cannot be
        # listed.
        walked = (AbstractFileSystem.find, AsyncFileSystem._find)
        self._lists = getattr(kind, "_find", kind.find) not in walked
        self._made: set[str] = set()
        self._making = threading.Lock()

    @property
    def identity(self) -> str:
        """Text that distinguishes this store from others."""
        files = self._shared
        return f"{type(files).__qualname__} {files.storage_args} {files.storage_options}"

    @property
    def _files(self) -> Any:
        """The fsspec file system: shared if it is thread-safe, else one per thread, cached by fsspec."""
        files = self._shared
        return files if files.async_impl else type(files)(*files.storage_args, **files.storage_options)

    def info(self, path: str) -> FileInfo | None:
        """Return the metadata of a path; None if nothing exists there.

        Raises:
            ReadError: The store cannot be queried.
        """
        try:
            return self._try(lambda: self._info(path))
        except MissingError:
            return None

    def is_there(self, path: str) -> bool:
        """Return True if an object exists. Takes one request; `info` also asks some stores for directories.

        Raises:
            ReadError: The store cannot be queried.
        """
        try:
            self._try(lambda: self._files.cat_file(path, start=0, end=1))
        except MissingError:
            return False
        except ReadError:  # perhaps because an empty object has no first byte
            return self.info(path) is not None
        return True

    def find(self, path: str, unlisted: dict[str, ReadError] | None = None) -> list[FileInfo]:
        """Return all objects below a directory.

        Args:
            path: The directory.
            unlisted: Gets the paths of directories below it that cannot be listed, with the errors. None to
                raise these errors.

        Raises:
            ReadError: The store cannot be queried, or the directory does not exist.
        """
        if not self._lists:
            return list(self._walk(path, unlisted))

        def attempt() -> list[FileInfo]:
            self._files.invalidate_cache()
            below = map(_found, self._files.find(path, detail=True).values())
            return [each for each in below if not each.is_directory]

        return self._try(attempt)

    def match(self, pattern: str) -> list[FileInfo]:
        """Return all objects and directories whose path matches a pattern, in the order of their paths.

        Raises:
            ReadError: The store cannot be queried.
        """
        return self._try(lambda: [_found(info) for info in self._files.glob(pattern, detail=True).values()])

    def fetch(self, expected: FileInfo, file: Path) -> FileInfo:
        """Download an object to a file. Return its metadata at that time, as it may have changed.

        Args:
            expected: Metadata of the object when it was listed.
            file: Path of the file to write.

        Raises:
            MissingError: The object no longer exists.
            ReadError: The object cannot be read, is longer than `MOST_UNKNOWN` without giving its size, or
                there is no space for the file.
        """
        from fsspec.callbacks import Callback

        current = expected

        def check(_: int | None, received: int, **__: Any) -> None:
            if current.size is None and received > MOST_UNKNOWN:
                raise ReadError(
                    f"the store does not give its size, and it is longer than {MOST_UNKNOWN >> 20} MiB"
                )
            if current.size is not None and received > current.size:
                raise _LongerError(f"received more than {current.size} bytes")

        def attempt() -> FileInfo:
            nonlocal current
            try:
                self._files.get_file(current.path, str(file), callback=Callback(hooks={"check": check}))
            except _LongerError:
                current = self._info(current.path)
                raise
            except OSError as error:
                if error.errno in _FULL:
                    raise ReadError(f"no space for a copy in {file.parent}: {error.strerror}") from None
                raise
            size, wanted = file.stat().st_size, current.size
            if wanted is not None and size != wanted:
                current = self._info(current.path)
                raise ConnectionError(f"received {size} of {wanted} bytes")
            return current

        return self._try(attempt)

    def put(self, file: Path, path: str) -> FileInfo:
        """Upload a file to an object, completely or not at all. Return the object's metadata.

        Raises:
            ReadError: The metadata cannot be read.
            WriteError: The object cannot be written.
        """
        self._write(path, lambda place: self._files.put_file(str(file), place))
        found = self.info(path)
        if found is None:
            raise WriteError("the store accepted it, but does not have it")
        return found

    def read(self, path: str, size: int | None = None) -> bytes:
        """Return the first `size` bytes of an object, or all.

        Raises:
            MissingError: The object does not exist.
            ReadError: The object cannot be read.
        """
        return self._try(lambda: bytes(self._files.cat_file(path, end=size)))

    def write(self, path: str, content: bytes) -> None:
        """Write a small object, completely or not at all.

        Raises:
            WriteError: The object cannot be written.
        """
        self._write(path, lambda place: self._files.pipe_file(place, content))

    def remove(self, paths: Iterable[str]) -> None:
        """Remove objects. Those that do not exist are ignored.

        Raises:
            ReadError: An object cannot be removed.
        """
        for path in paths:
            with contextlib.suppress(MissingError):
                self._try(functools.partial(self._files.rm_file, path))

    def _walk(self, path: str, unlisted: dict[str, ReadError] | None) -> Iterator[FileInfo]:
        def attempt() -> list[FileInfo]:
            self._files.invalidate_cache()
            return [_found(info) for info in self._files.ls(path, detail=True)]

        for each in self._try(attempt):
            if not each.is_directory:
                yield each
            elif each.path.strip("/") != path.strip("/"):
                try:
                    yield from self._walk(each.path, unlisted)
                except ReadError as error:
                    if unlisted is None or is_transient(error):
                        raise
                    unlisted[each.path] = error

    def _write(self, path: str, copy: Callable[[str], object]) -> None:
        try:
            self._retrier.call(lambda: self._write_and_rename(path, copy) if self.has_files else copy(path))
        except Exception as error:  # of any library
            raise WriteError(f"cannot write it: {explained(error)}") from error

    def _write_and_rename(self, path: str, copy: Callable[[str], object]) -> None:
        """Write a temporary file in the same directory, and then rename it."""
        parent, _, name = path.rpartition("/")
        with self._making:
            if parent not in self._made:
                self._files.makedirs(parent, exist_ok=True)
                self._made.add(parent)
        temporary = atomic.claim(Path(name).suffix)
        try:
            copy(f"{parent}/{temporary}")
            self._files.mv(f"{parent}/{temporary}", path)
        except BaseException:
            with contextlib.suppress(Exception):
                self._files.rm_file(f"{parent}/{temporary}")
            raise
        finally:
            atomic.release(temporary)

    def _try(self, attempt: Callable[[], T]) -> T:
        try:
            return self._retrier.call(attempt)
        except Exception as error:  # of any library
            raise (MissingError if is_missing(error) else ReadError)(explained(error)) from error

    def _info(self, path: str) -> FileInfo:
        self._files.invalidate_cache()
        return _found(self._files.info(path))


@dataclass(frozen=True)
class RemotePath:
    """A path in a store, of an object, a directory or nothing yet.

    Attributes:
        file_system: The store.
        url: URL of the path, which has its form in the store.
    """

    file_system: FileSystem
    url: Url

    @property
    def path(self) -> str:
        """Path in the store's form, as in `FileInfo`."""
        return self.url.path or ""

    @property
    def identity(self) -> str:
        """Text that distinguishes this path from others, in all stores."""
        return f"{self.file_system.identity} {self.path.strip('/')}"

    def below(self, name: str) -> "RemotePath":
        """Return the path of `name`, which may have several parts, below this one."""
        return RemotePath(self.file_system, self.url / name)

    def relative(self, found: FileInfo) -> str:
        """Return the path of an object below this directory, relative to it."""
        return found.path.lstrip("/").removeprefix(self.path.strip("/")).removeprefix("/")

    def contains(self, other: "RemotePath") -> bool:
        """Return True if the other path is this one or lies below it."""
        return other.identity == self.identity or other.identity.startswith(f"{self.identity}/")


@contextlib.contextmanager
def _naming(url: Url) -> Iterator[None]:
    """Prefix the ReadError of a store with the URL."""
    try:
        yield
    except ReadError as error:
        raise ReadError(f"{url}: {error}") from error


def _hint(url: Url) -> str:
    """Return the command that installs the library for a store, if the extra includes it."""
    return f" ({_INSTALL})" if url.text.partition("://")[0].lower() in _IN_EXTRA else ""


def _schemes(files: Any) -> tuple[str, ...]:
    """Return the URL schemes of an fsspec file system."""
    return (files.protocol,) if isinstance(files.protocol, str) else tuple(files.protocol)


def _options(url: Url) -> dict[str, Any]:
    """Return options for a store, merged with the user's configuration of fsspec, which has priority."""
    from fsspec.config import conf

    scheme = url.text.partition("://")[0].lower()
    options: dict[str, Any] = {}
    if scheme in ("s3", "s3a"):
        # One connection per object: with several, each could receive a part of a different version.
        options = {"config_kwargs": {"retries": {"total_max_attempts": 1}}, "max_concurrency": 1}
    elif url.is_web:
        from aiohttp import ClientTimeout

        timeout = ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT, sock_read=_READ_TIMEOUT)
        options = {"client_kwargs": {"timeout": timeout}, "encoded": True}
    for name, value in conf.get(scheme, {}).items():
        if name in options:
            options[name] = {**options[name], **value} if isinstance(value, dict) else value
    return options


def _found(info: dict[str, Any]) -> FileInfo:
    """Return the metadata of an object, from fsspec's description of it."""
    version = next((info[key] for key in (*_VERSIONS, *_LESS_RELIABLE) if info.get(key)), None)
    if isinstance(version, datetime):
        version = version.timestamp()
    size = info.get("size")
    return FileInfo(
        info["name"],
        info["type"] == "directory",
        None if size is None else int(size),
        None if version is None else str(version),
    )

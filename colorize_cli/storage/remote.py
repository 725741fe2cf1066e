"""Objects in remote stores, by fsspec: listed, fetched and put whole, and what fails in passing tried again.

The only module that knows fsspec. The libraries below it find credentials by their own means (environment,
profiles, metadata services), and none are taken or shown here. Their own tries are switched off where they
would multiply with those of `retry`.
"""

import contextlib
import errno
import functools
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from colorize_cli.core.errors import ReadError, UsageError, WriteError, one_line
from colorize_cli.core.location import Url, redacted
from colorize_cli.storage import atomic
from colorize_cli.storage.fingerprint import Fingerprint
from colorize_cli.storage.retry import Patience, Retrier, explained, is_missing

T = TypeVar("T")

# What stores call the version of an object, the surest first.
_VERSIONS = ("ETag", "etag", "generation", "md5Hash", "Content-MD5", "mtime", "LastModified", "Last-Modified")
_LESS_SURE = ("last_modified", "updated", "modified", "modify", "created")
# Stores of objects, some of which say that they can rename.
_OBJECTS = frozenset({"abfs", "az", "gcs", "gs", "memory", "oss", "s3"})
# What the extra brings, and its name.
_BROUGHT = frozenset({"gcs", "gs", "http", "https", "s3", "s3a"})
_INSTALL = "pip install 'colorize-cli[remote]'"
_FULL = (errno.ENOSPC, errno.EDQUOT)
# All that may stand in an address of the web as it is; a % is there already.
_QUOTED = "%/:?#[]@!$&'()*+,;=~"
_CONNECTING, _READING = 10, 30  # seconds of silence from a web server


class MissingError(ReadError):
    """There is no such object, or there is none any more."""


@dataclass(frozen=True)
class FileInfo:
    """What a store says of an object or directory.

    Attributes:
        path: As the store has it; of the web it is the address, which may hold secrets.
        is_directory: Whether it is one, or a prefix of objects' names.
        size: In bytes; None where the store does not say.
        version: What changes when it is written to; None where the store does not say.
    """

    path: str = field(repr=False)
    is_directory: bool
    size: int | None
    version: str | None

    @property
    def fingerprint(self) -> Fingerprint:
        """As a manifest notes it; where the store names no version, one that is like no other."""
        version = self.version or f"unknown {secrets.token_hex(8)}"
        return Fingerprint(-1 if self.size is None else self.size, 0, version)


class FileSystems:
    """The stores of a run."""

    def __init__(self, patience: Patience | None = None) -> None:
        """Knows none yet.

        Args:
            patience: How often what fails is tried.
        """
        self._retrier = Retrier(patience or Patience())
        self._known: dict[str, FileSystem] = {}

    def locate(self, url: Url) -> "RemotePath":
        """What an address means; whether there is anything is not looked at.

        Raises:
            UsageError: fsspec, or what it needs for such an address, is not installed; there are no such
                addresses.
        """
        try:
            from fsspec.core import url_to_fs
        except ImportError as error:
            raise UsageError(f"{url}: for this, {_INSTALL}") from error
        text = quote(url.text, safe=_QUOTED) if url.is_web else url.text
        try:
            files, path = url_to_fs(text, **_options(url))
        except ImportError as error:
            raise UsageError(f"{url}: {one_line(error)}{_hint(url)}") from error
        except Exception as error:  # whatever a library says of its own configuration
            raise UsageError(f"{url}: {redacted(one_line(error))}") from error
        file_system = FileSystem(files, self._retrier)
        file_system = self._known.setdefault(file_system.identity, file_system)
        return RemotePath(file_system, path.rstrip("/") if not url.is_web else path, url)

    def stop(self) -> None:
        """Nothing is tried again from now on."""
        self._retrier.stop()


class FileSystem:
    """One file system of fsspec's. May be used from several threads."""

    def __init__(self, files: Any, retrier: Retrier) -> None:
        from fsspec.asyn import AsyncFileSystem
        from fsspec.spec import AbstractFileSystem

        kind = type(files)
        self._shared = files
        self._retrier = retrier
        if "s3" in _schemes(files):  # its own tries, which are an attribute of the class
            files.retries = 1
        # What can rename has files, which are half there while they are written; objects are there when they
        # are whole.
        self._renames = kind.mv is not AbstractFileSystem.mv and not _OBJECTS.intersection(_schemes(files))
        # What has no listing of its own would be walked by fsspec, which passes over directories that cannot
        # be listed.
        walked = (AbstractFileSystem.find, AsyncFileSystem._find)
        self._lists = getattr(kind, "_find", kind.find) not in walked
        self._made: set[str] = set()
        self._making = threading.Lock()

    @property
    def identity(self) -> str:
        """What tells it from other stores."""
        files = self._shared
        return f"{type(files).__qualname__} {files.storage_args} {files.storage_options}"

    @property
    def _files(self) -> Any:
        """The file system: one for all threads if it is made for that, or one for each, kept by fsspec."""
        files = self._shared
        return files if files.async_impl else type(files)(*files.storage_args, **files.storage_options)

    def info(self, path: str) -> FileInfo | None:
        """What is under a path; None if nothing is.

        Raises:
            ReadError: The store does not say.
        """
        try:
            return self._try(lambda: self._info(path))
        except MissingError:
            return None

    def is_there(self, path: str) -> bool:
        """Whether there is an object: one request, where `info` asks some stores for directories too.

        Raises:
            ReadError: The store does not say.
        """
        try:
            self._try(lambda: self._files.cat_file(path, start=0, end=1))
        except MissingError:
            return False
        except ReadError:  # perhaps for there is no first byte
            return self.info(path) is not None
        return True

    def find(self, path: str) -> list[FileInfo]:
        """All objects below a directory.

        Raises:
            ReadError: The store does not say, or there is no such directory.
        """
        if not self._lists:
            return list(self._walk(path))

        def attempt() -> list[FileInfo]:
            self._files.invalidate_cache()
            below = map(_found, self._files.find(path, detail=True).values())
            return [each for each in below if not each.is_directory]

        return self._try(attempt)

    def match(self, pattern: str) -> list[FileInfo]:
        """All objects and directories whose path matches a pattern, in the order of their paths.

        Raises:
            ReadError: The store does not say.
        """
        return self._try(lambda: [_found(info) for info in self._files.glob(pattern, detail=True).values()])

    def fetch(self, expected: FileInfo, file: Path) -> FileInfo:
        """Copies an object into a file; returns what the object was then, for it may have changed.

        Raises:
            MissingError: It is there no longer.
            ReadError: It cannot be read.
        """
        current = expected

        def attempt() -> FileInfo:
            nonlocal current
            try:
                self._files.get_file(current.path, str(file))
            except OSError as error:
                if error.errno in _FULL:
                    raise ReadError(f"no room for its copy in {file.parent}: {error.strerror}") from None
                raise
            size, wanted = file.stat().st_size, current.size
            if wanted is not None and size != wanted:
                current = self._info(current.path)
                raise ConnectionError(f"{size} of {wanted} bytes came")
            return current

        return self._try(attempt)

    def put(self, file: Path, path: str) -> FileInfo:
        """Copies a file to an object, which is there whole or not at all; returns what it is then.

        Raises:
            ReadError: The store does not say what it is.
            WriteError: It cannot be written.
        """
        self._write(path, lambda place: self._files.put_file(str(file), place))
        found = self.info(path)
        if found is None:
            raise WriteError("it was written, but is not there")
        return found

    def read(self, path: str) -> bytes:
        """The content of a small object.

        Raises:
            MissingError: There is none.
            ReadError: It cannot be read.
        """
        return self._try(lambda: bytes(self._files.cat_file(path)))

    def write(self, path: str, content: bytes) -> None:
        """Writes a small object, which is there whole or not at all.

        Raises:
            WriteError: It cannot be written.
        """
        self._write(path, lambda place: self._files.pipe_file(place, content))

    def remove(self, paths: Iterable[str]) -> None:
        """Removes objects, those that are there.

        Raises:
            ReadError: They cannot be removed.
        """
        for path in paths:
            with contextlib.suppress(MissingError):
                self._try(functools.partial(self._files.rm_file, path))

    def _walk(self, path: str) -> Iterator[FileInfo]:
        def attempt() -> list[FileInfo]:
            self._files.invalidate_cache()
            return [_found(info) for info in self._files.ls(path, detail=True)]

        for each in self._try(attempt):
            if not each.is_directory:
                yield each
            elif each.path.strip("/") != path.strip("/"):
                yield from self._walk(each.path)

    def _write(self, path: str, copy: Callable[[str], object]) -> None:
        try:
            self._retrier.call(lambda: self._named(path, copy) if self._renames else copy(path))
        except Exception as error:  # of whatever library
            raise WriteError(f"cannot write it: {explained(error)}") from error

    def _named(self, path: str, copy: Callable[[str], object]) -> None:
        """Writes a file beside its place, then gives it its name."""
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
        except Exception as error:  # of whatever library
            raise (MissingError if is_missing(error) else ReadError)(explained(error)) from error

    def _info(self, path: str) -> FileInfo:
        self._files.invalidate_cache()
        return _found(self._files.info(path))


@dataclass(frozen=True)
class RemotePath:
    """What lies in a store under a path, be it an object or a directory, or nothing yet.

    Attributes:
        file_system: The store.
        path: As the store has it; as of `FileInfo`.
        url: As it is shown.
    """

    file_system: FileSystem
    path: str = field(repr=False)
    url: Url

    @property
    def identity(self) -> str:
        """What tells it from others."""
        return f"{self.file_system.identity} {self.path.strip('/')}"

    def below(self, name: str) -> "RemotePath":
        """What lies in it under a name, which may have several parts."""
        return RemotePath(self.file_system, f"{self.path}/{name}", self.url.below(name))

    def relative(self, found: FileInfo) -> str:
        """The path of an object that lies in it, below it."""
        return found.path.lstrip("/").removeprefix(self.path.strip("/")).removeprefix("/")

    def contains(self, other: "RemotePath") -> bool:
        """Whether the other is this or lies in it."""
        return other.identity == self.identity or other.identity.startswith(f"{self.identity}/")


def _hint(url: Url) -> str:
    """How to install what a store needs, where it is this program's to say."""
    return f" ({_INSTALL})" if url.text.partition("://")[0].lower() in _BROUGHT else ""


def _schemes(files: Any) -> tuple[str, ...]:
    """How addresses of a file system of fsspec's may begin."""
    return (files.protocol,) if isinstance(files.protocol, str) else tuple(files.protocol)


def _options(url: Url) -> dict[str, Any]:
    """How a store is to be used, beyond what the user's configuration of fsspec and its libraries says."""
    from fsspec.config import conf

    scheme = url.text.partition("://")[0].lower()
    options: dict[str, Any] = {}
    if scheme in ("s3", "s3a"):
        # One connection for each object: of several, each could get a part of another version.
        options = {"config_kwargs": {"retries": {"total_max_attempts": 1}}, "max_concurrency": 1}
    elif url.is_web:
        from aiohttp import ClientTimeout

        timeout = ClientTimeout(total=None, sock_connect=_CONNECTING, sock_read=_READING)
        options = {"client_kwargs": {"timeout": timeout}, "encoded": True}
    for name, value in conf.get(scheme, {}).items():
        if name in options:
            options[name] = {**options[name], **value} if isinstance(value, dict) else value
    return options


def _found(info: dict[str, Any]) -> FileInfo:
    """From what fsspec says of an object."""
    version = next((info[key] for key in (*_VERSIONS, *_LESS_SURE) if info.get(key)), None)
    if isinstance(version, datetime):
        version = version.timestamp()
    size = info.get("size")
    return FileInfo(
        info["name"],
        info["type"] == "directory",
        None if size is None else int(size),
        None if version is None else str(version),
    )

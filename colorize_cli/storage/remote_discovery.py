"""Planning of a run with an input or the output in a remote store, by the rules of `discovery`.

Each input is listed once, which also gives the sizes and versions of its objects. Objects may have any name.
Names that are impossible for a local file, or that lead out of the output, are refused one by one.
"""

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from glob import has_magic
from pathlib import Path
from posixpath import splitext

from colorize_cli.core.errors import ReadError, UsageError
from colorize_cli.core.jobs import Transfer
from colorize_cli.core.location import STREAM, Location, Url
from colorize_cli.storage import discovery
from colorize_cli.storage.discovery import Selection, as_output
from colorize_cli.storage.remote import FileInfo, FileSystems, RemotePath
from colorize_cli.storage.retry import NOT_THERE

_LOOKUP_THREADS = 16
_ALL = Selection()
_DOT_PARTS = frozenset({".", ".."})


@dataclass(frozen=True)
class RemoteJob:
    """A job of a run with remote stores.

    Attributes:
        source: The input.
        destination: The output.
        name: Path of the output below the output directory, with / between its parts.
        found: The store's metadata of the input; None for a local path.
        refused: Reason why the job cannot be done; None if it can.
    """

    source: Path | RemotePath
    destination: Path | RemotePath
    name: str
    found: FileInfo | None = None
    refused: str | None = None

    @property
    def transfer(self) -> Transfer:
        """The job in the form for messages and reports."""
        return Transfer(_shown(self.source), _shown(self.destination))


@dataclass(frozen=True)
class RemotePlan:
    """All jobs of a run with remote stores.

    Attributes:
        jobs: In the order of the inputs on the command line; within a directory sorted by path.
        ignored: Number of files of unsupported types in the searched directories.
        root: Directory that contains all outputs; None if a single file is written to a single file.
        elsewhere: Jobs of the other shards.
        file_systems: File systems of the stores.
    """

    jobs: tuple[RemoteJob, ...]
    ignored: int
    root: Path | RemotePath | None
    elsewhere: tuple[RemoteJob, ...]
    file_systems: FileSystems


@dataclass(frozen=True)
class _Input:
    """An input: a file or a directory, with its metadata if it is in a store."""

    location: Path | RemotePath
    found: FileInfo | None = None

    @property
    def is_directory(self) -> bool:
        if isinstance(self.location, Path):
            return self.location.is_dir()
        return self.found is not None and self.found.is_directory


def plan(
    inputs: Sequence[Location],
    output: Location,
    endings: Mapping[str, str],
    *,
    listed: Sequence[Location] = (),
    selection: Selection = _ALL,
    file_systems: FileSystems | None = None,
) -> RemotePlan:
    """Find the files to colorize and their destinations, like `discovery.plan`.

    Web inputs must be files, because web servers do not list their files. An output URL that ends in / is a
    directory.

    Args:
        inputs: Files and directories, local and in stores, and patterns, but no patterns of web URLs.
        output: A directory, which need not exist, or a file.
        endings: As in `discovery.plan`.
        listed: As in `discovery.plan`. URLs do not keep their directories below `output`.
        selection: As in `discovery.plan`.
        file_systems: Resolves the URLs; None for a new collection.

    Raises:
        UsageError: As in `discovery.plan`; also if a store cannot be queried, or the output is on the web.
    """
    try:
        return _Planning(output, endings, selection, file_systems or FileSystems()).plan(inputs, listed)
    except ReadError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        raise UsageError(f"{error.filename}: {error.strerror}") from error


class _Planning:
    def __init__(
        self, output: Location, endings: Mapping[str, str], selection: Selection, file_systems: FileSystems
    ) -> None:
        if isinstance(output, Url) and output.is_web:
            raise UsageError(f"{output}: cannot write to the web; give a directory, a file or a store")
        self._output = output
        self._where = file_systems.locate(output) if isinstance(output, Url) else output
        self._endings = endings
        self._selection = selection
        self._file_systems = file_systems

    def plan(self, inputs: Sequence[Location], listed: Sequence[Location]) -> RemotePlan:
        found = list(self._inputs(inputs))
        if STREAM in (*inputs, self._output):
            return self._streamed(found, listed)
        if not listed and self._is_file_to_file(found):
            return self._finished([self._remote_job(found[0], None)], 0, None)
        if self._output_is_file():
            raise UsageError(f"the output {self._output} is a file; give a directory")
        remote_jobs: list[RemoteJob] = []
        ignored = 0
        for each in found:
            pictures, others = self._search(each)
            remote_jobs += pictures
            ignored += others
        pictures, others = self._listed(listed)
        remote_jobs = list(dict.fromkeys((*remote_jobs, *pictures)))
        return self._finished(remote_jobs, ignored + others, self._where)

    def _inputs(self, inputs: Sequence[Location]) -> Iterator[_Input]:
        looked = self._looked(inputs)
        for each in inputs:
            if isinstance(each, Path):
                yield from map(_Input, discovery.expanded([each]))
                continue
            where, there = looked[each]
            matches = self._matching(where) if there is None else [_Input(where, there)]
            if not matches:
                raise UsageError(f"no such file or directory: {each}")
            yield from matches

    def _looked(self, locations: Sequence[Location]) -> dict[Url, tuple[RemotePath, FileInfo | None]]:
        """Return the path and metadata of each URL among the locations; None if nothing exists there."""
        objects = [
            self._file_systems.locate(each) for each in dict.fromkeys(locations) if isinstance(each, Url)
        ]

        def look(where: RemotePath) -> tuple[RemotePath, FileInfo | None]:
            with _naming(where.url):
                return where, where.file_system.info(where.path)

        with ThreadPoolExecutor(_LOOKUP_THREADS) as pool:
            return {where.url: (where, found) for where, found in pool.map(look, objects)}

    def _matching(self, where: RemotePath) -> list[_Input]:
        """Return the matches of a pattern; none if it is not a pattern."""
        if where.url.is_web or not has_magic(where.path):
            return []
        with _naming(where.url):
            matches = where.file_system.match(where.path)
        parts = where.path.split("/")
        depth = next(index for index, part in enumerate(parts) if has_magic(part))
        above = RemotePath(where.file_system, "/".join(parts[:depth]), where.url.above(len(parts) - depth))
        return [_Input(above.below(above.relative(found)), found) for found in matches]

    def _streamed(self, found: list[_Input], listed: Sequence[Location]) -> RemotePlan:
        if listed or len(found) != 1 or found[0].is_directory:
            raise UsageError(
                "with - for standard input or output, give exactly one input, which is a file or -"
            )
        if self._output != STREAM and not self._is_file_to_file(found):
            raise UsageError(f"with - for the input, the output must be a file or -, not {self._output}")
        return self._finished([self._remote_job(found[0], None)], 0, None)

    def _is_file_to_file(self, found: list[_Input]) -> bool:
        if len(found) != 1 or found[0].is_directory or self._output_is_directory():
            return False
        return discovery.is_meant_as_file(self._output, self._endings)

    def _output_is_directory(self) -> bool:
        if isinstance(self._where, Path):
            return self._where.is_dir()
        if self._where.url.text.endswith("/"):
            return True
        return self._there is not None and self._there.is_directory

    def _output_is_file(self) -> bool:
        if isinstance(self._where, Path):
            return self._where.exists() and not self._where.is_dir()
        return self._there is not None and not self._there.is_directory

    @functools.cached_property
    def _there(self) -> FileInfo | None:
        """The metadata of an output in a store, if it exists there."""
        if isinstance(self._where, Path):
            return None
        with _naming(self._where.url):
            return self._where.file_system.info(self._where.path)

    def _search(self, given: _Input) -> tuple[list[RemoteJob], int]:
        """Return the jobs of an input, and the number of its other files."""
        where = given.location
        if isinstance(where, Path):
            output = self._where if isinstance(self._where, Path) else None
            pairs, ignored = discovery.search([where], output, self._endings, self._selection)
            return [self._remote_job(_Input(path), Path(name).as_posix()) for path, name in pairs], ignored
        if not given.is_directory:
            return [self._remote_job(given, where.url.name)], 0
        if isinstance(self._where, RemotePath) and where.identity == self._where.identity:
            raise UsageError(f"the output {self._output} is the input {where.url}; inputs are never modified")
        with _naming(where.url):
            objects = where.file_system.find(where.path)
        remote_jobs: list[RemoteJob] = []
        ignored = 0
        for each in sorted(objects, key=lambda found: found.path.split("/")):
            name = where.relative(each)
            picture = where.below(name)
            made = isinstance(self._where, RemotePath) and self._where.contains(picture)
            if made or not self._is_taken(name.split("/")):
                continue
            if splitext(name)[1].lower() in self._endings:
                remote_jobs.append(self._remote_job(_Input(picture, each), name))
            else:
                ignored += 1
        return remote_jobs, ignored

    def _is_taken(self, parts: list[str]) -> bool:
        """Return True if an object is selected by its path: it is a file, not hidden, and not left out."""
        hidden = any(part.startswith(".") and part not in _DOT_PARTS for part in parts)
        if hidden or not parts[-1]:
            return False
        if any(self._selection.excludes("/".join(parts[: end + 1])) for end in range(len(parts))):
            return False
        return self._selection.includes("/".join(parts))

    def _listed(self, listed: Sequence[Location]) -> tuple[list[RemoteJob], int]:
        paths = [each for each in listed if isinstance(each, Path)]
        pairs, ignored = discovery.search([], None, self._endings, self._selection, paths)
        remote_jobs = [self._remote_job(_Input(path), Path(name).as_posix()) for path, name in pairs]
        for url, (where, found) in self._looked(listed).items():
            if found is None:
                remote_jobs.append(self._remote_job(_Input(where), url.name, NOT_THERE))
            elif found.is_directory:
                ignored += 1
            else:
                remote_jobs.append(self._remote_job(_Input(where, found), url.name))
        return remote_jobs, ignored

    def _remote_job(self, picture: _Input, name: str | None, refused: str | None = None) -> RemoteJob:
        """Return the job of an input. `name` is its path below the output; None if the output is a file."""
        if name is None:
            return RemoteJob(picture.location, self._where, _shown(self._where).name, picture.found)
        name = as_output(name, self._endings)
        parts = name.split("/")
        if not parts[-1]:
            refused = "its URL does not end in a file name"
        elif _DOT_PARTS.intersection(parts):
            refused = "its name has . or .. as a part; rename it"
        elif isinstance(self._where, Path) and ("\0" in name or Path(name).parts != tuple(parts)):
            refused = "its name is impossible for a local file; rename it"
        if isinstance(self._where, Path):
            destination: Path | RemotePath = self._where / (
                name if refused is None else parts[-1].replace("\0", "")
            )
        else:
            destination = self._where.below(name)
        return RemoteJob(picture.location, destination, name, picture.found, refused)

    def _finished(
        self, remote_jobs: list[RemoteJob], ignored: int, root: Path | RemotePath | None
    ) -> RemotePlan:
        good = [remote_job for remote_job in remote_jobs if remote_job.refused is None]
        locations = [
            location for remote_job in good for location in (remote_job.source, remote_job.destination)
        ]
        addresses = {
            location.url: location.identity for location in locations if isinstance(location, RemotePath)
        }
        transfers = [remote_job.transfer for remote_job in good]
        discovery.refuse_collisions(transfers, addresses)
        if isinstance(root, Path):
            discovery.refuse_escapes(transfers, root)
        here = tuple(remote_job for remote_job in remote_jobs if self._is_in_shard(remote_job))
        elsewhere = tuple(remote_job for remote_job in remote_jobs if not self._is_in_shard(remote_job))
        return RemotePlan(here, ignored, root, elsewhere, self._file_systems)

    def _is_in_shard(self, remote_job: RemoteJob) -> bool:
        return self._selection.shard[1] == 1 or self._selection.owns(remote_job.name)


@contextlib.contextmanager
def _naming(url: Url) -> Iterator[None]:
    """Prefix the ReadError of a store with the URL."""
    try:
        yield
    except ReadError as error:
        raise ReadError(f"{url}: {error}") from error


def _shown(location: Path | RemotePath) -> Location:
    return location if isinstance(location, Path) else location.url

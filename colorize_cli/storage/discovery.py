"""The plan of a run: which files are read, and where to.

Nothing here opens a picture, and a plan holds only paths, so a directory of 50,000 files is planned in a
second. What would make two files one, or an input an output, is found here, before any work is done.
"""

import contextlib
import fnmatch
import glob
import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from colorize_cli.core.errors import UsageError
from colorize_cli.core.jobs import Job, Plan, Transfer
from colorize_cli.core.location import STREAM, Location, Url, parse_location


@dataclass(frozen=True)
class Selection:
    """Which of the pictures found are taken.

    Attributes:
        include: Patterns; with any, only files in directories that match one of them are taken.
        exclude: Patterns of files and directories in directories that are left out.
        shard: The number i of the part that is taken, from 1, and the number N of parts, of the jobs split by
            their destinations' names. The parts are the same wherever they are computed.

    A pattern is a shell's (`*.tif`, `1950s/*`), matched against the path below the searched directory and
    against the name alone; `*` matches separators too.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    shard: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        """Refuses a part that there is not, with a UsageError."""
        part, parts = self.shard
        if not 1 <= part <= parts:
            raise UsageError(f"there is no shard {part} of {parts}")

    def includes(self, name: str) -> bool:
        """Whether a file of that path below the searched directory is taken, if it is not left out."""
        return not self.include or _matches(name, self.include)

    def excludes(self, name: str) -> bool:
        """Whether a file or directory of that path below the searched one is left out."""
        return bool(self.exclude) and _matches(name, self.exclude)

    def owns(self, name: str) -> bool:
        """Whether the output of that path below the output directory is of this shard."""
        part, parts = self.shard
        digest = hashlib.blake2b(os.fsencode(name), digest_size=8).digest()
        return int.from_bytes(digest, "big") % parts == part - 1


def plan(
    inputs: Sequence[Path],
    output: Path,
    endings: Mapping[str, str],
    *,
    listed: Sequence[Path] = (),
    selection: Selection = Selection(),
) -> Plan:
    """Finds the pictures and where they go.

    A directory is searched to its leaves and its tree is kept below `output`; hidden files and directories
    are left out, links are followed unless they lead back, and so is `output` where it lies inside. A file
    that is named goes into `output` under its own name, whatever its kind, or, if it is the only input and
    `output` has an ending of outputs and is no directory, becomes `output`. A name that does not exist, but
    is a pattern (`scans/*.tif`), stands for what it matches. `STREAM` stands for standard input or output, of
    which there is one picture.

    Args:
        inputs: Files and directories.
        output: A directory, which need not exist, or a file.
        endings: For each known ending of a picture's name, in lower case, with the dot, that of its output.
        listed: Files from a list. A relative path that stays below the working directory keeps its
            directories below `output`; directories are left out, as lists often name them beside their files.
        selection: Which of what is found is taken.

    Raises:
        UsageError: An input does not exist or cannot be searched, `output` is a file where a directory is
            needed or has an unknown ending where a file is meant, two sources have one destination, a
            destination is a source or lies outside of `output` because of a link. The paths are named.
    """
    with _explained():
        return _plan(expanded(inputs), output, endings, listed, selection)


def find(inputs: Sequence[Path], kinds: Collection[str]) -> tuple[list[Path], int]:
    """Finds pictures by the rules of `plan`, where nothing is made of each.

    Args:
        inputs: Files and directories, patterns of their names among them.
        kinds: The endings of names that are looked for in directories, in lower case, with the dot.

    Returns:
        Each file once, in the order of the inputs, and how many others lie in the directories.

    Raises:
        UsageError: An input does not exist or cannot be searched. The path is named.
    """
    found: dict[Path, None] = {}
    ignored = 0
    with _explained():
        for root, relative in _sources(expanded(inputs), None, Selection()):
            if relative is None or _suffix(relative) in kinds:
                found[root if relative is None else root / relative] = None
            else:
                ignored += 1
    return list(found), ignored


def read_list(stream: BinaryIO, *, nul: bool) -> list[Location]:
    """Places from a list, one a line, or with `nul` each ended by a NUL; empty ones are left out."""
    entries = stream.read().split(b"\0" if nul else b"\n")
    locations = [parse_location(os.fsdecode(entry)) for entry in entries if entry]
    return [Path.cwd() / each if each == STREAM else each for each in locations]


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """What the system says of a path, as a UsageError."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{error.filename}: {error.strerror}") from error


def expanded(inputs: Sequence[Path]) -> list[Path]:
    """The inputs, patterns among them replaced by what they match.

    Raises:
        UsageError: There is no such file, and it is no pattern or one of nothing.
    """
    found: list[Path] = []
    for path in inputs:
        if path == STREAM or path.exists() or path.is_symlink():
            found.append(path)
            continue
        pattern = str(path)
        matches = sorted(glob.glob(pattern, recursive=True)) if glob.has_magic(pattern) else []  # noqa: PTH207
        if not matches:
            raise UsageError(f"no such file or directory: {path}")
        found += map(Path, matches)
    return found


def _plan(
    inputs: Sequence[Path],
    output: Path,
    endings: Mapping[str, str],
    listed: Sequence[Path],
    selection: Selection,
) -> Plan:
    if STREAM in (*inputs, output):
        return _plan_stream(inputs, output, endings, listed)
    if not listed and _is_file_to_file(inputs, output, endings):
        only = [Job(inputs[0], output)]
        refuse_collisions(only)
        return _sharded(Plan(tuple(only), 0, None), output.parent, selection)
    if output.exists() and not output.is_dir():
        raise UsageError(f"the output {output} is a file; give a directory")
    found, ignored = search(inputs, output, endings, selection, listed)
    jobs = list(dict.fromkeys(Job(path, output / as_output(name, endings)) for path, name in found))
    refuse_collisions(jobs)
    refuse_escapes(jobs, output)
    return _sharded(Plan(tuple(jobs), ignored, output), output, selection)


def _plan_stream(
    inputs: Sequence[Path], output: Path, endings: Mapping[str, str], listed: Sequence[Path]
) -> Plan:
    if listed or len(inputs) != 1 or (inputs[0] != STREAM and inputs[0].is_dir()):
        raise UsageError("with - for standard input or output there is one input, a single picture")
    if output != STREAM and not _is_file_to_file(inputs, output, endings):
        raise UsageError(f"with - for the input, the output is a file or -, not {output}")
    return Plan((Job(inputs[0], output),), 0, None)


def _is_file_to_file(inputs: Sequence[Path], output: Path, endings: Mapping[str, str]) -> bool:
    if len(inputs) != 1 or inputs[0].is_dir() or output.is_dir():
        return False
    return is_meant_as_file(output, endings)


def is_meant_as_file(output: Location, endings: Mapping[str, str]) -> bool:
    """Whether an output that is no directory is to be a file, for it has an ending.

    Raises:
        UsageError: That is none of an output.
    """
    if output.suffix and output.suffix.lower() not in endings.values():
        known = ", ".join(sorted({*endings.values()}))
        raise UsageError(f"{output} is no directory, and does not end in one of {known}")
    return bool(output.suffix)


def as_output(name: str, endings: Mapping[str, str]) -> str:
    """The name with the ending that outputs have."""
    stem, suffix = os.path.splitext(name)  # noqa: PTH122  (50,000 Paths cost seconds)
    wanted = endings.get(suffix.lower(), suffix.lower())
    return name if wanted == suffix.lower() else stem + wanted


def _place(listed: Path) -> Path:
    """Where a listed file lies below the output."""
    relative = Path(os.path.normpath(listed))
    leads_out = listed.is_absolute() or relative.parts[0] == os.pardir
    return Path(listed.name) if leads_out else relative


def _sharded(whole: Plan, output: Path, selection: Selection) -> Plan:
    if selection.shard[1] == 1:
        return whole
    own: list[Job] = []
    elsewhere: list[Job] = []
    for job in whole.jobs:
        name = job.destination.relative_to(output).as_posix()
        (own if selection.owns(name) else elsewhere).append(job)
    return Plan(tuple(own), whole.ignored, whole.root, tuple(elsewhere))


def search(
    inputs: Sequence[Path],
    output: Path | None,
    endings: Mapping[str, str],
    selection: Selection,
    listed: Sequence[Path] = (),
) -> tuple[list[tuple[Path, str]], int]:
    """The pictures, each with its name below the output but its own ending; and how many other files.

    Args:
        inputs: Files and directories; all exist.
        output: Is not searched where it lies inside; None where it is not on this machine.
        endings: Those that are known in directories.
        selection: Which of what is in directories is taken.
        listed: As of `plan`.

    Raises:
        UsageError: The output is an input.
        OSError: A directory cannot be searched.
    """
    excluded = None if output is None else _identity(output)
    for path in inputs:
        if excluded is not None and path.is_dir() and _identity(path) == excluded:
            raise UsageError(f"the output {output} is the input {path}; inputs are never modified")
    found: list[tuple[Path, str]] = []
    ignored = 0
    for root, relative in _sources(inputs, excluded, selection):
        if relative is None:
            found.append((root, root.name))
        elif _suffix(relative) in endings:
            found.append((root / relative, relative))
        else:
            ignored += 1
    for path in listed:
        if path.is_dir():
            ignored += 1
        else:
            found.append((path, str(_place(path))))
    return found, ignored


def _sources(
    inputs: Iterable[Path], excluded: tuple[int, int] | None, selection: Selection
) -> Iterator[tuple[Path, str | None]]:
    """Inputs that are files, each with None, and directories, with the path of each file selected in them."""
    for path in inputs:
        if not path.is_dir():
            yield path, None
            continue
        for relative in _files(path, excluded, selection):
            if selection.includes(relative):
                yield path, relative


def _suffix(relative: str) -> str:
    return os.path.splitext(relative)[1].lower()  # noqa: PTH122  (50,000 Paths cost seconds)


def _files(root: Path, output: tuple[int, int] | None, selection: Selection) -> Iterator[str]:
    """Paths of the files below a directory, relative to it, sorted; hidden and excluded ones left out."""

    def walk(relative: str, above: frozenset[tuple[int, int]]) -> Iterator[str]:
        with os.scandir(root / relative) as entries:
            listed = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
        for entry in listed:
            below = f"{relative}{os.sep}{entry.name}" if relative else entry.name
            if selection.excludes(below):
                continue
            if not _is_directory(entry):
                yield below
                continue
            identity = _identity(Path(entry.path))
            if identity is not None and identity != output and identity not in above:
                yield from walk(below, above | {identity})

    own = _identity(root)
    yield from walk("", frozenset() if own is None else frozenset({own}))


def _matches(relative: str, patterns: Iterable[str]) -> bool:
    name = relative.rpartition(os.sep)[2]
    return any(fnmatch.fnmatch(relative, p) or fnmatch.fnmatch(name, p) for p in patterns)


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself: it will fail as a job of its own
        return False


def _identity(path: Path) -> tuple[int, int] | None:
    """What makes two paths the same directory or file; None where there is nothing."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


class _RealPaths:
    """Paths without links in their directories, which many files share; and what addresses mean."""

    def __init__(self, addresses: Mapping[Url, str]) -> None:
        self._addresses = addresses
        self._directories: dict[str, str] = {}

    def directory(self, path: str) -> str:
        if path not in self._directories:
            self._directories[path] = os.path.realpath(path)
        return self._directories[path]

    def file(self, where: Location) -> str:
        if isinstance(where, Url):
            return self._addresses[where]
        directory, name = os.path.split(where)
        return os.path.normcase(f"{self.directory(directory)}{os.sep}{name}")


def refuse_collisions(jobs: Sequence[Job | Transfer], addresses: Mapping[Url, str] | None = None) -> None:
    """Refuses jobs of which two make one output, or one would replace an input.

    Args:
        jobs: The jobs.
        addresses: For each address among them what tells whether two are the same, which no path is.

    Raises:
        UsageError: Both are named.
    """
    real = _RealPaths(addresses or {})
    owners: dict[str, Job | Transfer] = {}
    for job in jobs:
        other = owners.setdefault(real.file(job.destination), job)
        if other is not job:
            raise UsageError(f"{other.source} and {job.source} would both become {job.destination}")
    for job in jobs:
        itself = real.file(job.source)
        led_to = os.path.normcase(os.path.realpath(itself)) if os.path.islink(itself) else itself  # noqa: PTH114
        for source in (itself, led_to):
            if source in owners:
                raise UsageError(f"{owners[source].source} would replace the input {job.source}")


def refuse_escapes(jobs: Sequence[Job | Transfer], output: Path) -> None:
    """Refuses, with a UsageError, what a link in the output directory would lead out of it."""
    root = os.path.realpath(output)
    inside: set[str] = set()
    for job in jobs:
        parent = os.path.dirname(str(job.destination))  # noqa: PTH120  (as above)
        if parent in inside:
            continue
        directory = os.path.realpath(parent)
        if os.path.commonpath((root, directory)) != root:
            raise UsageError(f"{job.destination} lies outside of {output}: its directory is {directory}")
        inside.add(parent)

"""Planning of a run: which files are read, and where their outputs go.

No picture is opened, and a plan holds only paths, so a directory of 50,000 files is planned in a second. Two
inputs with the same output, and outputs that would replace an input, are found here, before any work is done.
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
    """Filters for the files found in directories, and the shard of a run.

    Attributes:
        include: Patterns. If there are any, a file in a directory must match one of them.
        exclude: Patterns of files and directories to leave out of directories.
        shard: Number of this shard, from 1, and number of shards. Jobs are divided among the shards by the
            names of their destinations, so that every machine computes the same division.

    Patterns have the syntax of a shell (`*.tif`, `1950s/*`). They are matched against the path below the
    searched directory and against the name alone. `*` matches separators too.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    shard: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        """Raise UsageError for a shard that does not exist."""
        number, count = self.shard
        if not 1 <= number <= count:
            raise UsageError(f"there is no shard {number} of {count}")

    def includes(self, name: str) -> bool:
        """Return True if a file is included by its path below the searched directory."""
        return not self.include or _matches(name, self.include)

    def excludes(self, name: str) -> bool:
        """Return True if a file or directory is left out by its path below the searched directory."""
        return bool(self.exclude) and _matches(name, self.exclude)

    def owns(self, name: str) -> bool:
        """Return True if an output belongs to this shard, by its path below the output directory."""
        number, count = self.shard
        digest = hashlib.blake2b(os.fsencode(name), digest_size=8).digest()
        return int.from_bytes(digest, "big") % count == number - 1


def plan(
    inputs: Sequence[Path],
    output: Path,
    endings: Mapping[str, str],
    *,
    listed: Sequence[Path] = (),
    selection: Selection = Selection(),
) -> Plan:
    """Find the files to colorize and their destinations.

    A directory is searched recursively, and its tree is kept below `output`. Hidden files and directories are
    left out, and so is `output` if it lies inside. Links are followed unless they lead back to a directory
    above.

    A file given by name may have any type, and goes into `output` under the same name. If it is the only
    input, and `output` is not a directory and has the suffix of an output, it is written to `output` itself.
    A path that does not exist but is a pattern (`scans/*.tif`) stands for its matches. `STREAM` stands for
    standard input or output, and requires exactly one input.

    Args:
        inputs: Files and directories.
        output: A directory, which need not exist, or a file.
        endings: Suffix of the output by suffix of the input, for all supported types, in lower case with the
            dot.
        listed: Files from a list. A relative path that stays below the working directory keeps its
            directories below `output`. Directories are ignored, as lists often contain them beside their
            files.
        selection: Filters for the files found, and the shard.

    Raises:
        UsageError: An input does not exist or cannot be searched; `output` is a file where a directory is
            needed, or has an unknown suffix where a file is meant; two sources have the same destination; a
            destination is a source, or lies outside of `output` because of a link. The text names the paths.
    """
    with _explained():
        return _plan(expanded(inputs), output, endings, listed, selection)


def find(inputs: Sequence[Path], kinds: Collection[str]) -> tuple[list[Path], int]:
    """Find files by the rules of `plan`, without destinations.

    Args:
        inputs: Files, directories and patterns.
        kinds: Suffixes to look for in directories, in lower case with the dot.

    Returns:
        Each file once, in the order of the inputs, and the number of other files in the directories.

    Raises:
        UsageError: An input does not exist or cannot be searched. The text names the path.
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
    """Read a list of locations, separated by newlines, or by NUL if `nul`.

    Empty entries are ignored. An entry `-` is a file of that name.
    """
    entries = stream.read().split(b"\0" if nul else b"\n")
    locations = [parse_location(os.fsdecode(entry)) for entry in entries if entry]
    return [Path.cwd() / each if each == STREAM else each for each in locations]


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turn an error of the operating system into a UsageError that names the path."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{error.filename}: {error.strerror}") from error


def expanded(inputs: Sequence[Path]) -> list[Path]:
    """Return the inputs, with each pattern replaced by its matches.

    Raises:
        UsageError: A path does not exist, and is not a pattern or matches nothing.
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
        raise UsageError("with - for standard input or output, give exactly one input, which is a file or -")
    if output != STREAM and not _is_file_to_file(inputs, output, endings):
        raise UsageError(f"with - for the input, the output must be a file or -, not {output}")
    return Plan((Job(inputs[0], output),), 0, None)


def _is_file_to_file(inputs: Sequence[Path], output: Path, endings: Mapping[str, str]) -> bool:
    if len(inputs) != 1 or inputs[0].is_dir() or output.is_dir():
        return False
    return is_meant_as_file(output, endings)


def is_meant_as_file(output: Location, endings: Mapping[str, str]) -> bool:
    """Return True if an output that is not a directory is meant to be a file, because it has a suffix.

    Raises:
        UsageError: The suffix is not the suffix of an output.
    """
    if output.suffix and output.suffix.lower() not in endings.values():
        known = ", ".join(sorted({*endings.values()}))
        raise UsageError(f"{output} is not a directory, and does not end in one of {known}")
    return bool(output.suffix)


def as_output(name: str, endings: Mapping[str, str]) -> str:
    """Return the name with the suffix of its output."""
    stem, suffix = os.path.splitext(name)  # noqa: PTH122  (50,000 Paths cost seconds)
    wanted = endings.get(suffix.lower(), suffix.lower())
    return name if wanted == suffix.lower() else stem + wanted


def _path_below_output(listed: Path) -> Path:
    """Return the path of a listed file below the output directory."""
    relative = Path(os.path.normpath(listed))
    leads_out = listed.is_absolute() or relative.parts[0] == os.pardir
    return Path(listed.name) if leads_out else relative


def _sharded(whole: Plan, output: Path, selection: Selection) -> Plan:
    if selection.shard[1] == 1:
        return whole
    here: list[Job] = []
    elsewhere: list[Job] = []
    for job in whole.jobs:
        name = job.destination.relative_to(output).as_posix()
        (here if selection.owns(name) else elsewhere).append(job)
    return Plan(tuple(here), whole.ignored, whole.root, tuple(elsewhere))


def search(
    inputs: Sequence[Path],
    output: Path | None,
    endings: Mapping[str, str],
    selection: Selection,
    listed: Sequence[Path] = (),
) -> tuple[list[tuple[Path, str]], int]:
    """Find the files, each with its path below the output directory, and count the other files.

    The paths below the output directory keep the suffixes of the inputs.

    Args:
        inputs: Existing files and directories.
        output: Output directory, left out if it lies inside an input; None if it is not on this machine.
        endings: Its keys are the suffixes to look for in directories.
        selection: Filters for the files in directories.
        listed: As in `plan`.

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
            found.append((path, str(_path_below_output(path))))
    return found, ignored


def _sources(
    inputs: Iterable[Path], excluded: tuple[int, int] | None, selection: Selection
) -> Iterator[tuple[Path, str | None]]:
    """Yield each file with None, and each directory with the path of every selected file inside it."""
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
    """Yield the relative paths of the files below a directory, sorted, without hidden and excluded ones."""

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

    identity = _identity(root)
    yield from walk("", frozenset() if identity is None else frozenset({identity}))


def _matches(relative: str, patterns: Iterable[str]) -> bool:
    name = relative.rpartition(os.sep)[2]
    return any(fnmatch.fnmatch(relative, p) or fnmatch.fnmatch(name, p) for p in patterns)


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself: it will fail as a separate job
        return False


def _identity(path: Path) -> tuple[int, int] | None:
    """Return the device and inode numbers of a path; None if nothing can be found there."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


class _RealPaths:
    """Paths with the links in their directories resolved, cached by directory, and identities of URLs."""

    def __init__(self, identities: Mapping[Url, str]) -> None:
        self._identities = identities
        self._directories: dict[str, str] = {}

    def directory(self, path: str) -> str:
        if path not in self._directories:
            self._directories[path] = os.path.realpath(path)
        return self._directories[path]

    def file(self, where: Location) -> str:
        if isinstance(where, Url):
            return self._identities[where]
        directory, name = os.path.split(where)
        return os.path.normcase(f"{self.directory(directory)}{os.sep}{name}")


def refuse_collisions(jobs: Sequence[Job | Transfer], addresses: Mapping[Url, str] | None = None) -> None:
    """Refuse jobs if two have the same destination, or a destination is a source.

    Args:
        jobs: The jobs.
        addresses: Identity of each URL among the jobs. It is equal for URLs of the same object, and never
            equal to a path.

    Raises:
        UsageError: Two jobs collide. The text names both.
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
    """Refuse jobs with destinations that a link in the output directory would lead out of it.

    Raises:
        UsageError: A destination lies outside of `output`. The text names both.
    """
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

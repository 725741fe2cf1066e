"""Planning of a run: which files are read, and where their outputs go, here and in stores.

No picture is opened, and a plan holds only locations, so a directory of 50,000 files is planned in a second.
Each input in a store is listed once, which also gives the sizes and versions of its objects. Two inputs with
the same output, and outputs that would replace an input, are found here, before any work is done.
"""

import codecs
import contextlib
import errno
import fnmatch
import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

from colorize_cli.core.errors import ReadError, UsageError, WriteError
from colorize_cli.core.formats import HINTS_SUFFIX, SUFFIXES_KEPT_IN_NAME, VIDEOS
from colorize_cli.core.jobs import Job, Outcome, Plan, Status
from colorize_cli.core.location import STREAM, Location, Url, parse_location
from colorize_cli.storage import atomic, stdio
from colorize_cli.storage.filesystem import DOT_PARTS, NOT_THERE, Entry, Storages, inode

_LOOKUP_THREADS = 16
_MOST_ENDINGS = 10  # in a message
_LONGEST_NAME = 255  # bytes; the limit of most file systems
_MOST_LIST = 256 << 20  # bytes
_EARLIER = "left out, as it holds outputs of an earlier run; give it as an input to include it"


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
    inputs: Sequence[Location],
    output: Location,
    endings: Mapping[str, str],
    *,
    is_directory: bool = False,
    listed: Sequence[Location] = (),
    selection: Selection = Selection(),
    storages: Storages | None = None,
    trial: str = "",
) -> Plan:
    """Find the files to colorize and their destinations.

    A directory is searched recursively, and its tree is kept below `output`. Hidden files and directories are
    left out, and so are `output` and directories with outputs of earlier runs if they lie inside. Links are
    followed unless they lead back to a directory above.

    A file given by name may have any type, and goes into `output` under the same name. If it is the only
    input, and `output` is not a directory and has the suffix of an output, it is written to `output` itself.
    An output URL that ends in / is a directory. A location where nothing is, but which is a pattern
    (`scans/*.tif`), stands for its matches. `STREAM` stands for standard input or output, and requires
    exactly one input.

    A directory below an input that cannot be searched gets a job, which is refused with the reason. Objects
    in stores may have any name. A job whose name would lead out of the output, or is impossible for a local
    file, is refused.

    Args:
        inputs: Files, directories and patterns, here and in stores. Web inputs must be files, because web
            servers do not list their files.
        output: A directory, which need not exist, or a file.
        endings: Suffix of the output by suffix of the input, for all supported types, in lower case with the
            dot. See `as_output`.
        is_directory: True if `output` is a directory even if it does not exist and has a suffix.
        listed: Files from a list. A relative path that stays below the working directory keeps its
            directories below `output`; a URL does not. Directories are ignored, as lists often contain them
            beside their files.
        selection: Filters for the files found, and the shard.
        storages: Where to look; None for a new collection.
        trial: Put before the suffix of each video's output in a directory, to tell a part from the whole.

    Raises:
        UsageError: An input does not exist or cannot be searched; `output` is a file where a directory is
            needed, has an unknown suffix where a file is meant, or is on the web; two sources have the same
            destination; a destination is a source, or lies outside of `output` because of a link. The text
            names the paths.
    """
    storages = storages or Storages()
    if isinstance(output, Url):
        if output.is_web:
            raise UsageError(f"{output}: cannot write to the web; give a directory, a file or a store")
        output = storages.remote.locate(output).url
    with _explained():
        found = _expanded(inputs, storages)
        there = storages.of(output).entry(output)
        is_directory = is_directory or (there is not None and there.is_directory)
        is_directory = is_directory or (isinstance(output, Url) and output.text.endswith("/"))
        single = len(found) == 1 and not found[0].is_directory and not listed
        to_file = single and not is_directory and output != STREAM and _is_meant_as_file(output, endings)
        if STREAM in (*inputs, output):
            if not single:
                raise UsageError(
                    "with - for standard input or output, give exactly one input, which is a file or -"
                )
            if output != STREAM and not to_file:
                raise UsageError(f"with - for the input, the output must be a file or -, not {output}")
            return Plan((_alone(found[0], output),), (), None)
        if to_file:
            only = _alone(found[0], output)
            _refuse_collisions([only], output, storages)
            return _sharded([(only, output.name)], [], None, selection)
        if there is not None and not there.is_directory:
            raise UsageError(f"the output {output} is a file; give a directory")
        entries, left_out = _searched(found, output, endings, selection, storages)
        named = [_job(entry, output, endings, trial) for entry in entries]
        in_list = _with_hints(list(_listed(listed, storages)), storages)
        named += [_job(entry, output, endings, trial) for entry in in_list if not entry.is_directory]
        if directories := [entry for entry in in_list if entry.is_directory]:
            reason = f"a directory in the list is not searched ({len(directories)} such directories)"
            first = directories[0]
            left_out.append(Outcome.skipped(Job(first.location, output / first.name), reason))
        named = list(dict.fromkeys(named))
        good = [job for job, _ in named if job.refused is None]
        _refuse_collisions(good, output, storages)
        if isinstance(output, Path):
            _refuse_escapes(good, output)
        plan_ = _sharded(named, left_out, output, selection)
        return replace(plan_, searched=any(entry.is_directory for entry in found))


def find(inputs: Sequence[Path], kinds: Collection[str]) -> tuple[dict[Path, str | None], list[Outcome]]:
    """Find files of this machine by the rules of `plan`, without destinations.

    Args:
        inputs: Files, directories and patterns.
        kinds: Suffixes to look for in directories, in lower case with the dot.

    Returns:
        Each file once with None, in the order of the inputs, and between them the directories that cannot be
        searched with the reason. Then `left_out` as in a plan; the destinations are the sources.

    Raises:
        UsageError: An input does not exist or cannot be searched. The text names the path.
    """
    storages = Storages()
    with _explained():
        found, left_out = _searched(_expanded(inputs, storages), None, kinds, Selection(), storages)
    paths = {entry.location: entry.error for entry in found if isinstance(entry.location, Path)}
    return paths, left_out


def read_list(stream: BinaryIO, *, nul: bool) -> list[Location]:
    """Read a list of locations, separated by line breaks of any system, or by NUL if `nul`.

    Lines may begin with a byte order mark, and are in UTF-16 if it says so. Names that contain or end with a
    line break are possible only with `nul`. Empty entries are ignored. An entry `-` is a file of that name.

    Raises:
        UsageError: The list is longer than `_MOST_LIST`, is cut off or cannot be read; or it holds NUL
            characters, and `nul` is false.
    """
    try:
        content = stdio.read_all(stream, _MOST_LIST)
    except OSError as error:
        raise UsageError(f"cannot read the list of files: {error.strerror}") from error
    if content is None:
        raise UsageError(f"the list of files is longer than {_MOST_LIST >> 20} MiB; divide it")
    if nul:
        entries = content.split(b"\0")
    else:
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            try:
                content = content.decode("utf-16", "surrogatepass").encode("utf-8", "surrogatepass")
            except UnicodeDecodeError as error:
                raise UsageError("the list of files is cut off: it ends within a UTF-16 character") from error
        if b"\0" in content:
            raise UsageError("the list has NUL characters; if it is from find -print0, add --null (-0)")
        lines = content.removeprefix(codecs.BOM_UTF8).split(b"\n")
        entries = [line.removesuffix(b"\r") for line in lines]
    locations = [parse_location(os.fsdecode(entry)) for entry in entries if entry]
    return [Path.cwd() / each if each == STREAM else each for each in locations]


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turn an error of the operating system or of a store into a UsageError that names the location."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{error.filename}: {error.strerror}") from error
    except ReadError as error:
        raise UsageError(str(error)) from error


def _looked_up(
    locations: Sequence[Location], storages: Storages, *, optional: bool = False
) -> list[Entry | None]:
    """Return the entry of each location. Stores are asked for several at a time.

    With `optional`, what may not be looked up counts as not there: a name that is too long, one in a
    directory that cannot be searched, and what a store refuses to show. Without the permission to list, S3
    refuses what does not exist.
    """

    def entry(location: Location) -> Entry | None:
        try:
            return storages.of(location).entry(location)
        except ReadError as error:
            from colorize_cli.storage.retry import is_transient

            if optional and not is_transient(error):
                return None
            raise
        except OSError as error:
            if optional and error.errno in (errno.ENAMETOOLONG, errno.EACCES):
                return None
            if error.errno != errno.ENAMETOOLONG:
                raise
            return Entry(location, location.name, is_directory=False, error=error.strerror)

    if not any(isinstance(location, Url) for location in locations):
        return list(map(entry, locations))
    with ThreadPoolExecutor(_LOOKUP_THREADS) as pool:
        return list(pool.map(entry, locations))


def _expanded(inputs: Sequence[Location], storages: Storages) -> list[Entry]:
    """Return the inputs, with each pattern replaced by its matches.

    Raises:
        UsageError: Nothing is at a location, and it is not a pattern or matches nothing.
    """
    found: list[Entry] = []
    for location, entry in zip(inputs, _looked_up(inputs, storages), strict=True):
        entries = storages.of(location).glob(location) if entry is None else [entry]
        if not entries:
            raise UsageError(f"no such file or directory: {location}")
        found += entries
    return _with_hints(found, storages)


def _with_hints(named: list[Entry], storages: Storages) -> list[Entry]:
    """Return files and directories given by name, each file with the hints beside it if there are any.

    A hints file is left out if its picture is given too, as by the pattern of a shell. The hints beside web
    inputs are not looked for, since their URLs may be signed.
    """
    beside: dict[str, Location] = {}
    for entry in named:
        location, name = entry.location, f"{entry.location.name}{HINTS_SUFFIX}"
        if entry.is_directory or entry.error is not None or location == STREAM:
            continue
        if isinstance(location, Path):
            beside[str(location)] = location.with_name(name)
        elif not location.is_web:
            path = location.path and f"{location.path}{HINTS_SUFFIX}"
            beside[str(location)] = replace(location.above(1) / name, path=path)
    of_others = set(map(str, beside.values()))
    kept = [entry for entry in named if str(entry.location) not in of_others]
    candidates = [beside[str(entry.location)] for entry in kept if str(entry.location) in beside]
    looked_up = _looked_up(candidates, storages, optional=True)
    if bad := next((entry for entry in looked_up if entry is not None and entry.error is not None), None):
        raise UsageError(f"{bad.location}: {bad.error}")
    there = {
        str(location): entry.location
        for location, entry in zip(candidates, looked_up, strict=True)
        if entry is not None and not entry.is_directory
    }
    return [
        replace(entry, hints=there.get(str(beside.get(str(entry.location))))) if there else entry
        for entry in kept
    ]


def _searched(
    found: list[Entry],
    output: Location | None,
    kinds: Collection[str],
    selection: Selection,
    storages: Storages,
) -> tuple[list[Entry], list[Outcome]]:
    """Return the given files, and those of `kinds` in the given directories, and what is left out of these.

    Directories below the given ones that cannot be searched are returned too. Files have the hints beside
    them; hints files without their picture count as files of other kinds.

    Raises:
        UsageError: The output is an input.
        OSError, ReadError: A given directory cannot be searched.
    """
    for entry in found:
        searched = entry.is_directory and entry.error is None
        if searched and output is not None and _is_same(entry.location, output, storages):
            raise UsageError(f"the output {output} is the input {entry.location}; inputs are never modified")
    files: list[Entry] = []
    left_out: list[Outcome] = []
    for entry in found:
        if not entry.is_directory or entry.error is not None:
            files.append(entry)
            continue
        ignored: Counter[str] = Counter()
        hints: dict[str, Location] = {}
        first = len(files)
        output_inside = output if type(output) is type(entry.location) else None
        storage = storages.of(entry.location)
        for each in storage.walk(entry.location, output_inside, selection.excludes):
            if each.is_directory and each.error is None:  # one with a manifest, see `Storage.walk`
                job = Job(each.location, output / each.name if output else each.location)
                left_out.append(Outcome.skipped(job, _EARLIER))
            elif each.is_directory:
                files.append(each)
            elif (picture := each.name.removesuffix(HINTS_SUFFIX)) != each.name:
                if each.error is not None:
                    files.append(each)
                elif selection.includes(picture) and not selection.excludes(picture):
                    hints[picture] = each.location
            elif not selection.includes(each.name):
                continue
            elif (suffix := os.path.splitext(each.name)[1].lower()) in kinds:  # noqa: PTH122  (as above)
                files.append(each)
            else:
                ignored[suffix] += 1
        if hints:
            for index in range(first, len(files)):
                files[index] = replace(files[index], hints=hints.pop(files[index].name, None))
            ignored.update({HINTS_SUFFIX: len(hints)} if hints else {})
        if ignored:
            job = Job(entry.location, output or entry.location)
            left_out.append(Outcome(job, Status.SKIPPED, _counted(ignored), ignored=ignored))
    return files, left_out


def _counted(ignored: Counter[str]) -> str:
    """Return a text with the numbers of ignored files by ending, the most frequent first."""
    ordered = sorted(ignored.items(), key=lambda item: (-item[1], item[0]))
    counts = [f"{suffix or 'without ending'} {count}" for suffix, count in ordered[:_MOST_ENDINGS]]
    rest = sum(count for _, count in ordered[_MOST_ENDINGS:])
    return f"files of other kinds ignored: {', '.join(counts)}{f', others {rest}' if rest else ''}"


def _is_same(directory: Location, output: Location, storages: Storages) -> bool:
    if isinstance(directory, Path) and isinstance(output, Path):
        return inode(directory) == inode(output)
    return storages.of(directory).identity(directory) == storages.of(output).identity(output)


def _listed(listed: Sequence[Location], storages: Storages) -> Iterator[Entry]:
    """Yield the entry of each listed file or directory."""
    urls = [location for location in listed if isinstance(location, Url)]
    looked_up = iter(_looked_up(urls, storages))
    for location in listed:
        if isinstance(location, Url):
            entry = next(looked_up)
            yield entry or Entry(location, location.name, is_directory=False, error=NOT_THERE)
        else:
            relative = Path(os.path.normpath(location))
            leads_out = location.is_absolute() or relative.parts[:1] == (os.pardir,)
            name = location.name if leads_out else relative.as_posix()
            # `Path.is_dir` raises an error where permission is missing.
            is_directory, error = os.path.isdir(location), None  # noqa: PTH112
            if not is_directory and location.name in ("", *DOT_PARTS):
                error = "it is not the name of a file"
            elif not is_directory:
                with contextlib.suppress(OSError):  # reading it will report that
                    error = None if (entry := storages.of(location).entry(location)) is None else entry.error
            yield Entry(location, name, is_directory, error=error)


def _alone(entry: Entry, output: Location) -> Job:
    """Return the job of a file that is written to a file."""
    return Job(entry.location, output, entry.info, entry.error, entry.hints)


def _job(entry: Entry, output: Location, endings: Mapping[str, str], trial: str) -> tuple[Job, str]:
    """Return the job of a file, and the path of its output below the output directory.

    The job of a directory that cannot be searched is refused, and so is one with too long an output name.
    """
    name = entry.name if entry.is_directory else as_output(entry.name, endings)
    stem, suffix = os.path.splitext(name)  # noqa: PTH122  (as above)
    if trial and suffix.lower() in VIDEOS and not entry.is_directory:
        name = f"{stem}{trial}{suffix}"
    refused = entry.error
    if isinstance(entry.location, Url):
        parts = name.split("/")
        if not parts[-1]:
            refused = "its URL does not end in a file name"
        elif DOT_PARTS.intersection(parts):
            refused = "its name has . or .. as a part; rename it"
        elif isinstance(output, Path) and ("\0" in name or Path(name).parts != tuple(parts)):
            refused = "its name is impossible for a local file; rename it"
        if refused and isinstance(output, Path):
            name = parts[-1].replace("\0", "")
    if isinstance(output, Path) and len(os.fsencode(name.rpartition("/")[2])) > _LONGEST_NAME:
        refused = refused or f"its output's name would be longer than {_LONGEST_NAME} bytes; rename it"
    return Job(entry.location, output / name, entry.info, refused, entry.hints), name


def _is_meant_as_file(output: Location, endings: Mapping[str, str]) -> bool:
    """Return True if an output that is not a directory is meant to be a file, because it has a suffix.

    Raises:
        UsageError: The suffix is not the suffix of an output.
    """
    if output.suffix and output.suffix.lower() not in endings.values():
        known = ", ".join(sorted({*endings.values()}))
        raise UsageError(f"{output} is not a directory, and does not end in one of {known}")
    return bool(output.suffix)


def as_output(name: str, endings: Mapping[str, str]) -> str:
    """Return the name with the suffix of its output: `a.gif.png` for `a.gif`, `a.tif` for `a.bmp`."""
    stem, suffix = os.path.splitext(name)  # noqa: PTH122  (50,000 Paths cost seconds)
    wanted = endings.get(suffix.lower(), suffix.lower())
    if wanted == suffix.lower():
        return name
    return (name if suffix.lower() in SUFFIXES_KEPT_IN_NAME else stem) + wanted


def _sharded(
    named: list[tuple[Job, str]], left_out: list[Outcome], root: Location | None, selection: Selection
) -> Plan:
    """Return a plan with the jobs of this shard, and the others elsewhere. Jobs have their outputs' names."""
    if selection.shard[1] == 1:
        return Plan(tuple(job for job, _ in named), tuple(left_out), root)
    here: list[Job] = []
    elsewhere: list[Job] = []
    for job, name in named:
        (here if selection.owns(name) else elsewhere).append(job)
    return Plan(tuple(here), tuple(left_out), root, tuple(elsewhere))


def _matches(relative: str, patterns: Iterable[str]) -> bool:
    name = relative.rpartition("/")[2]
    return any(fnmatch.fnmatch(relative, p) or fnmatch.fnmatch(name, p) for p in patterns)


def _refuse_collisions(jobs: Sequence[Job], output: Location, storages: Storages) -> None:
    """Refuse jobs if two have the same destination, or a destination is a source.

    Names that differ only in case or in the form of their accents are the same if they are for `output`.

    Raises:
        UsageError: Two jobs collide. The text names both.
    """
    destinations = [storages.of(job.destination).identity(job.destination) for job in jobs]
    sources = [storages.of(job.source).identity(job.source) for job in jobs]
    linked = [
        os.path.normcase(os.path.realpath(source)) if os.path.islink(source) else source  # noqa: PTH114
        for source in sources
    ]
    names = {*destinations, *sources, *linked}
    fold: Callable[[str], str] = str
    if storages.of(output).may_fold(output) and len({_folded(name) for name in names}) < len(names):
        fold = _folding(output, storages)
    owners: dict[str, tuple[Job, str]] = {}
    for job, name in zip(jobs, destinations, strict=True):
        other, other_name = owners.setdefault(fold(name), (job, name))
        if other is not job:
            text = f"{other.source} and {job.source} would both become {job.destination}"
            if name != other_name:
                text += f", as the file system of {output} does not tell their names apart; rename one"
            elif any(
                each.source.suffix.lower() not in (*SUFFIXES_KEPT_IN_NAME, each.destination.suffix.lower())
                for each in (job, other)
            ):
                text += "; without --format they keep their endings"
            raise UsageError(text)
    for job, *pair in zip(jobs, sources, linked, strict=True):
        for source in map(fold, pair):
            if source in owners:
                raise UsageError(f"{owners[source][0].source} would replace the input {job.source}")


def _folded(name: str, *, case: bool = True, form: bool = True) -> str:
    """Return a name without differences in upper and lower `case`, and in the Unicode `form` of accents."""
    name = unicodedata.normalize("NFC", name) if form else name
    return name.casefold() if case else name


def _folding(directory: Location, storages: Storages) -> Callable[[str], str]:
    """Return a function that is equal for names that a directory takes for the same.

    To find out, two files are written for a moment: to the directory or, if it does not exist, to the nearest
    one above. Where nothing can be written, all names differ.
    """
    storage = storages.of(directory)
    directory = storage.nearest(directory)
    folds = []
    for suffix, change in ((".case", str.upper), (".\u00e9", partial(unicodedata.normalize, "NFD"))):
        name = atomic.claim(suffix)
        path = directory / name
        try:
            with atomic.passing(path) if isinstance(path, Path) else contextlib.nullcontext():
                storage.write(path, b"")
                try:
                    folds.append(storage.entry(directory / change(name)) is not None)
                finally:
                    storage.remove([path])
        except (OSError, ReadError, WriteError):
            folds.append(False)
        finally:
            atomic.release(name)
    return partial(_folded, case=folds[0], form=folds[1])


def _refuse_escapes(jobs: Sequence[Job], output: Path) -> None:
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

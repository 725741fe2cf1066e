"""The plan of a run of which an input or the output is in a remote store, by the rules of `discovery`.

What is there is listed once, and from then on known with its size and version. Names of objects may be
anything; those that no file can have here, or that lead elsewhere, are refused one by one.
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
from colorize_cli.core.location import STREAM, Place, Url
from colorize_cli.storage import discovery
from colorize_cli.storage.discovery import Selection, as_output
from colorize_cli.storage.remote import Found, Object, Stores
from colorize_cli.storage.retry import NOT_THERE

_LOOKING = 16  # threads
_ALL = Selection()
_LEADING_ELSEWHERE = frozenset({".", ".."})


@dataclass(frozen=True)
class Errand:
    """A picture, where it is, and where its coloured copy goes.

    Attributes:
        source: The picture.
        destination: Its coloured copy.
        name: The copy's below the output directory, with / between its parts.
        found: What the store said of the picture; None for a path.
        refused: Why it cannot be done, if so.
    """

    source: Path | Object
    destination: Path | Object
    name: str
    found: Found | None = None
    refused: str | None = None

    @property
    def transfer(self) -> Transfer:
        """As it is shown."""
        return Transfer(_shown(self.source), _shown(self.destination))


@dataclass(frozen=True)
class RemotePlan:
    """What a run will do.

    Attributes:
        jobs: In the order of their sources, as given on the command line.
        ignored: How many files in the searched directories are of no known kind.
        root: What all outputs lie below; None where a single file becomes a single file.
        elsewhere: The jobs of the other shards.
        stores: Where they are.
    """

    jobs: tuple[Errand, ...]
    ignored: int
    root: Path | Object | None
    elsewhere: tuple[Errand, ...]
    stores: Stores


@dataclass(frozen=True)
class _Input:
    """An input: a picture, with what is known of it, or a directory."""

    place: Path | Object
    found: Found | None = None

    @property
    def is_directory(self) -> bool:
        if isinstance(self.place, Path):
            return self.place.is_dir()
        return self.found is not None and self.found.is_directory


def plan(
    inputs: Sequence[Place],
    output: Place,
    endings: Mapping[str, str],
    *,
    listed: Sequence[Place] = (),
    selection: Selection = _ALL,
    stores: Stores | None = None,
) -> RemotePlan:
    """Finds the pictures and where they go; otherwise as `discovery.plan`.

    Of the web only files can be inputs, for servers do not list what they have. An output that ends in / is a
    directory.

    Args:
        inputs: Files and directories here and in stores, and patterns of their names, but not of the web.
        output: A directory, which need not exist, or a file.
        endings: As of `discovery.plan`.
        listed: As of `discovery.plan`; addresses keep no directories.
        selection: As of `discovery.plan`.
        stores: What finds the stores.

    Raises:
        UsageError: As of `discovery.plan`; also a store that cannot be asked.
    """
    try:
        return _Planning(output, endings, selection, stores or Stores()).plan(inputs, listed)
    except ReadError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        raise UsageError(f"{error.filename}: {error.strerror}") from error


class _Planning:
    def __init__(
        self, output: Place, endings: Mapping[str, str], selection: Selection, stores: Stores
    ) -> None:
        if isinstance(output, Url) and output.is_web:
            raise UsageError(f"{output}: the web can be read from, but not written to")
        self._output = output
        self._where = stores.locate(output) if isinstance(output, Url) else output
        self._endings = endings
        self._selection = selection
        self._stores = stores

    def plan(self, inputs: Sequence[Place], listed: Sequence[Place]) -> RemotePlan:
        found = list(self._inputs(inputs))
        if STREAM in (*inputs, self._output):
            return self._streamed(found, listed)
        if not listed and self._is_file_to_file(found):
            return self._finished([self._errand(found[0], None)], 0, None)
        if self._output_is_file():
            raise UsageError(f"the output {self._output} is a file; give a directory")
        errands: list[Errand] = []
        ignored = 0
        for each in found:
            pictures, others = self._search(each)
            errands += pictures
            ignored += others
        pictures, others = self._listed(listed)
        errands = list(dict.fromkeys((*errands, *pictures)))
        return self._finished(errands, ignored + others, self._where)

    def _inputs(self, inputs: Sequence[Place]) -> Iterator[_Input]:
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

    def _looked(self, places: Sequence[Place]) -> dict[Url, tuple[Object, Found | None]]:
        """What is under the addresses among some places; None where nothing is."""
        objects = [self._stores.locate(each) for each in dict.fromkeys(places) if isinstance(each, Url)]

        def look(where: Object) -> tuple[Object, Found | None]:
            with _naming(where.url):
                return where, where.store.info(where.path)

        with ThreadPoolExecutor(_LOOKING) as pool:
            return {where.url: (where, found) for where, found in pool.map(look, objects)}

    def _matching(self, where: Object) -> list[_Input]:
        """What a pattern stands for."""
        if where.url.is_web or not has_magic(where.path):
            return []
        with _naming(where.url):
            matches = where.store.match(where.path)
        parts = where.path.split("/")
        depth = next(index for index, part in enumerate(parts) if has_magic(part))
        above = Object(where.store, "/".join(parts[:depth]), where.url.above(len(parts) - depth))
        return [_Input(above.below(above.relative(found)), found) for found in matches]

    def _streamed(self, found: list[_Input], listed: Sequence[Place]) -> RemotePlan:
        if listed or len(found) != 1 or found[0].is_directory:
            raise UsageError("with - for standard input or output there is one input, a single picture")
        if self._output != STREAM and not self._is_file_to_file(found):
            raise UsageError(f"with - for the input, the output is a file or -, not {self._output}")
        return self._finished([self._errand(found[0], None)], 0, None)

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
    def _there(self) -> Found | None:
        """What is in a store where the output is to be."""
        if isinstance(self._where, Path):
            return None
        with _naming(self._where.url):
            return self._where.store.info(self._where.path)

    def _search(self, given: _Input) -> tuple[list[Errand], int]:
        """The pictures of an input, and how many other files there are."""
        where = given.place
        if isinstance(where, Path):
            output = self._where if isinstance(self._where, Path) else None
            pairs, ignored = discovery.search([where], output, self._endings, self._selection)
            return [self._errand(_Input(path), Path(name).as_posix()) for path, name in pairs], ignored
        if not given.is_directory:
            return [self._errand(given, where.url.name)], 0
        if isinstance(self._where, Object) and where.identity == self._where.identity:
            raise UsageError(f"the output {self._output} is the input {where.url}; inputs are never modified")
        with _naming(where.url):
            objects = where.store.find(where.path)
        errands: list[Errand] = []
        ignored = 0
        for each in sorted(objects, key=lambda found: found.path.split("/")):
            name = where.relative(each)
            picture = where.below(name)
            made = isinstance(self._where, Object) and self._where.contains(picture)
            if made or not self._is_taken(name.split("/")):
                continue
            if splitext(name)[1].lower() in self._endings:
                errands.append(self._errand(_Input(picture, each), name))
            else:
                ignored += 1
        return errands, ignored

    def _is_taken(self, parts: list[str]) -> bool:
        """Whether an object of that path is chosen: a file, not hidden, and not left out."""
        hidden = any(part.startswith(".") and part not in _LEADING_ELSEWHERE for part in parts)
        if hidden or not parts[-1]:
            return False
        if any(self._selection.excludes("/".join(parts[: end + 1])) for end in range(len(parts))):
            return False
        return self._selection.includes("/".join(parts))

    def _listed(self, listed: Sequence[Place]) -> tuple[list[Errand], int]:
        paths = [each for each in listed if isinstance(each, Path)]
        pairs, ignored = discovery.search([], None, self._endings, self._selection, paths)
        errands = [self._errand(_Input(path), Path(name).as_posix()) for path, name in pairs]
        for url, (where, found) in self._looked(listed).items():
            if found is None:
                errands.append(self._errand(_Input(where), url.name, NOT_THERE))
            elif found.is_directory:
                ignored += 1
            else:
                errands.append(self._errand(_Input(where, found), url.name))
        return errands, ignored

    def _errand(self, picture: _Input, name: str | None, refused: str | None = None) -> Errand:
        """What is to be done with a picture; its name is below the output, or None where that is a file."""
        if name is None:
            return Errand(picture.place, self._where, _shown(self._where).name, picture.found)
        name = as_output(name, self._endings)
        parts = name.split("/")
        if not parts[-1]:
            refused = "its address ends in no name"
        elif _LEADING_ELSEWHERE.intersection(parts):
            refused = "its name leads elsewhere"
        elif isinstance(self._where, Path) and ("\0" in name or Path(name).parts != tuple(parts)):
            refused = "no file can have its name here"
        if isinstance(self._where, Path):
            destination: Path | Object = self._where / (
                name if refused is None else parts[-1].replace("\0", "")
            )
        else:
            destination = self._where.below(name)
        return Errand(picture.place, destination, name, picture.found, refused)

    def _finished(self, errands: list[Errand], ignored: int, root: Path | Object | None) -> RemotePlan:
        good = [errand for errand in errands if errand.refused is None]
        places = [place for errand in good for place in (errand.source, errand.destination)]
        addresses = {place.url: place.identity for place in places if isinstance(place, Object)}
        transfers = [errand.transfer for errand in good]
        discovery.refuse_collisions(transfers, addresses)
        if isinstance(root, Path):
            discovery.refuse_escapes(transfers, root)
        own = tuple(errand for errand in errands if self._is_own(errand))
        elsewhere = tuple(errand for errand in errands if not self._is_own(errand))
        return RemotePlan(own, ignored, root, elsewhere, self._stores)

    def _is_own(self, errand: Errand) -> bool:
        return self._selection.shard[1] == 1 or self._selection.owns(errand.name)


@contextlib.contextmanager
def _naming(url: Url) -> Iterator[None]:
    """Adds the address to what a store could not say."""
    try:
        yield
    except ReadError as error:
        raise ReadError(f"{url}: {error}") from error


def _shown(place: Path | Object) -> Place:
    return place if isinstance(place, Path) else place.url

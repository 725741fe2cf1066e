"""Reader of CIFAR-10 (Krizhevsky 2009): the Python and the binary version, packed or extracted."""

from __future__ import annotations

import lzma
import pickletools
import tarfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.data.prepare import DataError, Manifest, read_to_end, save_crops

SIDE = 32
SPLITS: dict[str, tuple[str, ...]] = {
    "train": tuple(f"data_batch_{number}" for number in range(1, 6)),
    "test": ("test_batch",),
}
_PICTURES = 10_000  # per batch
_VALUES = 3 * SIDE * SIDE
_CLASSES = 10
_MOST_BYTES = 64 << 20  # of a batch; the largest copies have 47 MB
_MOST_OPCODES = 1_000_000  # of a batch; copies have about 100,000
_FOLDERS = ("cifar-10-batches-py", "cifar-10-batches-bin")


class _BatchError(Exception):
    """A damaged batch. The message describes the damage."""


def is_cifar10(source: Path) -> bool:
    """Return True if `source` is an archive of CIFAR-10 or a folder with its batches. Checks names only."""
    if source.is_dir():
        return any(
            (folder / name).exists() for folder in _candidate_folders(source) for name in _file_names()
        )
    try:
        with tarfile.open(source) as tar:
            first = tar.next()
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError):
        return False
    return first is not None and any(folder in Path(first.name).parts for folder in _FOLDERS)


def read_cifar10(source: Path) -> dict[str, NDArray[np.uint8]]:
    """Read the pictures of the official splits, in their order.

    Args:
        source: `cifar-10-python` or `cifar-10-binary` as .tar.gz or .tar.xz, or the extracted folder.

    Returns:
        `train`, (50000, 32, 32, 3) sRGB, and `test`, (10000, 32, 32, 3).

    Raises:
        DataError: if a batch is missing or damaged. The message names the batch.
    """
    batches: dict[str, NDArray[np.uint8]] = {}
    latest = "the beginning"
    try:
        for member in _members(source):
            batch = member.name.removesuffix(".bin")
            if not any(batch in names for names in SPLITS.values()):
                continue
            latest = batch
            decode = _decode_binary if member.name.endswith(".bin") else _decode_pickle
            batches[batch] = decode(member.read()).reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    except _BatchError as error:
        raise DataError(f"{source}: {latest} is damaged ({error}); download it again") from error
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{source}: cannot be read: error at {latest} ({reason})") from error
    if missing := [name for names in SPLITS.values() for name in names if name not in batches]:
        raise DataError(f"{source}: {', '.join(missing)} not found")
    return {split: np.concatenate([batches[name] for name in names]) for split, names in SPLITS.items()}


def prepare_cifar10(source: Path, out: Path) -> dict[str, Manifest]:
    """Write the splits as prepared folders `out`/train and `out`/test. No picture is left out.

    Raises:
        DataError: if `source` cannot be read (see `read_cifar10`) or the folders cannot be written.
    """
    return {
        split: save_crops(out / split, pixels, [source]) for split, pixels in read_cifar10(source).items()
    }


class _Member(NamedTuple):
    name: str
    open: Callable[[], IO[bytes] | None]

    def read(self) -> bytes:
        """Read the file, at most `_MOST_BYTES`."""
        file = self.open()
        assert file is not None  # noqa: S101 - only regular files are members
        with file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise _BatchError(f"larger than {_MOST_BYTES} bytes")
        return data


def _members(source: Path) -> Iterator[_Member]:
    """Yield the files of an archive or folder, with names without their folder."""
    if source.is_dir():
        for folder in _candidate_folders(source):
            for name in _file_names():
                if (path := folder / name).is_file():
                    yield _Member(name, lambda path=path: path.open("rb"))  # type: ignore[misc]
        return
    with tarfile.open(source) as tar:
        for entry in tar:
            if entry.isfile():
                yield _Member(Path(entry.name).name, partial(tar.extractfile, entry))
        read_to_end(tar)


def _candidate_folders(folder: Path) -> tuple[Path, ...]:
    return (folder, *(folder / name for name in _FOLDERS))


def _file_names() -> Iterator[str]:
    for names in SPLITS.values():
        for name in names:
            yield name
            yield f"{name}.bin"


def _decode_binary(data: bytes) -> NDArray[np.uint8]:
    """Decode the binary version: per picture a label byte and 3072 bytes of red, green and blue planes."""
    if len(data) != _PICTURES * (1 + _VALUES):
        raise _BatchError(f"{len(data)} bytes, expected {_PICTURES * (1 + _VALUES)}")
    records = np.frombuffer(data, np.uint8).reshape(_PICTURES, 1 + _VALUES)
    if records[:, 0].max() >= _CLASSES:
        raise _BatchError(f"class {records[:, 0].max()} does not exist")
    return records[:, 1:]


def _decode_pickle(data: bytes) -> NDArray[np.uint8]:
    """Decode the Python version: the array `data` in a pickled dictionary.

    The opcodes are read as text is, and compared with those that numpy writes for an array of this type and
    shape. Nothing is unpickled: numpy and pickle's memo crash or take any amount of memory on crafted files.
    """
    tokens = _tokens(data)
    array: list[Any] = ["_reconstruct", "ndarray", 0, "TUPLE1", b"b", "TUPLE3", "REDUCE"]
    array += ["MARK", 1, _PICTURES, _VALUES, "TUPLE2"]
    array += ["dtype", b"u1", 0, 1, "TUPLE3", "REDUCE"]
    array += ["MARK", 3, b"|", None, None, None, -1, -1, 0, "TUPLE", "BUILD", False]
    if b"data" in tokens:
        start = tokens.index(b"data") + 1
        end = start + len(array)
        if tokens[start:end] == array and tokens[end + 1 : end + 3] == ["TUPLE", "BUILD"]:
            pixels = tokens[end]
            if isinstance(pixels, bytes) and len(pixels) == _PICTURES * _VALUES:
                return np.frombuffer(pixels, np.uint8).reshape(_PICTURES, _VALUES)
    raise _BatchError(f"its data is not an array of {_PICTURES} x {_VALUES} bytes")


# The only names in the pickles. Python 2 and numpy 1 wrote the published files, newer versions wrote copies.
_GLOBALS = {
    "numpy.core.multiarray _reconstruct": "_reconstruct",
    "numpy._core.multiarray _reconstruct": "_reconstruct",
    "numpy ndarray": "ndarray",
    "numpy dtype": "dtype",
    "_codecs encode": "encode",
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUED = {"BININT", "BININT1", "BININT2", "SHORT_BINSTRING", "BINSTRING", "BINUNICODE"}


def _tokens(data: bytes) -> list[Any]:
    """List the opcodes of a pickle of protocol 2: values as such, other opcodes and functions by their names.

    Text becomes bytes. Python 3 writes bytes as text and a call of `_codecs.encode`; that becomes bytes too.

    Raises:
        _BatchError: for anything that no batch of CIFAR-10 contains.
    """
    tokens: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        argument: Any
        for number, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            name = opcode.name
            if number >= _MOST_OPCODES:
                raise _BatchError(f"it has more than {_MOST_OPCODES} opcodes")
            if name == "PROTO" and argument != 2:
                raise _BatchError(f"it has protocol {argument} in place of 2")
            if name in ("PROTO", "STOP"):
                continue
            if name in ("BINPUT", "LONG_BINPUT"):
                memo[argument] = tokens[-1]
            elif name in ("BINGET", "LONG_BINGET"):
                tokens.append(memo[argument])
            elif name == "GLOBAL":
                if argument not in _GLOBALS:
                    raise _BatchError(
                        f"it refers to {argument.replace(' ', '.')}, which no batch of CIFAR-10 needs"
                    )
                tokens.append(_GLOBALS[argument])
            elif name in _VALUED:
                tokens.append(argument.encode("latin1") if isinstance(argument, str) else argument)
            else:
                tokens.append(_CONSTANTS.get(name, name))
            if tokens[-5:-4] == ["encode"] and tokens[-3:] == [b"latin1", "TUPLE2", "REDUCE"]:
                tokens[-5:] = [tokens[-4]]
    except (ValueError, KeyError, IndexError) as error:
        raise _BatchError(" ".join(f"{type(error).__name__}: {error}".split())) from error
    return tokens

"""Reader of CIFAR-10 (Krizhevsky 2009): the Python and the binary version, packed or extracted."""

from __future__ import annotations

import codecs
import io
import lzma
import pickle
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

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
    read: Callable[[], bytes]


def _members(source: Path) -> Iterator[_Member]:
    """Yield the files of an archive or folder, with names without their folder."""
    if source.is_dir():
        for folder in _candidate_folders(source):
            for name in _file_names():
                if (folder / name).is_file():
                    yield _Member(name, (folder / name).read_bytes)
        return
    with tarfile.open(source) as tar:
        for entry in tar:
            if entry.isfile() and (content := tar.extractfile(entry)) is not None:
                yield _Member(Path(entry.name).name, content.read)
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
    """Decode the Python version: the array `data` in a pickled dictionary."""
    with _any_error_is_damage():
        content = _Unpickler(io.BytesIO(data), encoding="bytes").load()
        pixels = content[b"data"]
    if not (isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8):
        raise _BatchError("its data is not an array of bytes")
    if pixels.shape != (_PICTURES, _VALUES):
        raise _BatchError(f"its data has the shape {pixels.shape}, expected {(_PICTURES, _VALUES)}")
    return pixels


@contextmanager
def _any_error_is_damage() -> Iterator[None]:
    try:
        yield
    except _BatchError:
        raise
    except Exception as error:  # damaged pickles raise nearly anything
        raise _BatchError(" ".join(f"{type(error).__name__}: {error}".split())) from error


def _latin1(text: str, encoding: str) -> bytes:
    """Decode the bytes that Python 3 writes into pickles of protocol 2 as Latin-1 text and a codec call."""
    if encoding != "latin1":
        raise _BatchError(f"it uses the codec {encoding!r}")
    return codecs.encode(text, "latin1")


# The only names in the pickles. Python 2 and numpy 1 wrote the published files, newer versions wrote copies.
_RECONSTRUCT: Any = np.empty(0).__reduce__()[0]
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin1,
}


class _Unpickler(pickle.Unpickler):
    """Resolves only the names that the batches need, so that no file can execute code."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _BatchError(f"it refers to {module}.{name}, which no batch of CIFAR-10 needs") from None

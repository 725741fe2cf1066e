"""Cut pictures of folders and tar shards into square training crops: one uint8 array and a manifest."""

from __future__ import annotations

import io
import json
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from colorize_cli.storage import atomic

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".avif"})
TAR_SUFFIXES = frozenset({".tar", ".tgz", ".tbz2", ".txz"})
CROPS_NAME = "crops.npy"
MANIFEST_NAME = "manifest.json"

GRAY_CHROMA = 2.0
"""Pictures with a mean chroma C*ab below this are left out: they teach nothing about color."""
LONG_ASPECT = 1.2
"""Pictures above this aspect ratio give two crops, one from each end; others give the central square."""
_QUEUED = 64

Crops = NDArray[np.uint8] | str


class DataError(Exception):
    """A source or prepared folder that cannot be used. The message names it."""


@dataclass(frozen=True)
class Manifest:
    """The content of a prepared folder."""

    size: int
    """Side of every crop, in pixels."""
    crops: int
    """Number of crops."""
    pictures: int
    """Number of pictures from which they were cut."""
    sources: list[str]
    """The folders, tar shards and files that were read."""
    dropped: dict[str, list[str]]
    """The names of the pictures that were left out, by reason."""


def prepare(
    sources: Iterable[Path],
    out: Path,
    size: int,
    *,
    workers: int = 4,
    progress: Callable[[], None] = lambda: None,
) -> Manifest:
    """Write the crops of all pictures in `sources` to `out`.

    Each picture is turned upright and its short side is resized to `size` by area averaging. One or two
    squares are cut from it (see `LONG_ASPECT`).

    Args:
        sources: JPEG, PNG, WebP and AVIF pictures, tar files of pictures, and folders of both, which are
            searched recursively.
        out: the folder to write. Its files appear complete or not at all.
        size: side of the crops, in pixels.
        workers: number of decoding threads.
        progress: called once for every picture, including those left out.

    Raises:
        DataError: if a source does not exist or cannot be read, or there is no usable picture.
    """
    sources = list(sources)
    for source in sources:
        if not source.exists():
            raise DataError(f"{source}: no such file or folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror})") from error
    atomic.sweep(out)  # a run that was killed may have left a file as large as the crops
    dropped: dict[str, list[str]] = {}
    pictures = crops = 0
    with atomic.writing(out / CROPS_NAME) as file, ThreadPoolExecutor(workers) as pool:
        _write_header(file, crops, size)
        for name, result in _map_bounded(pool, lambda data: crop_picture(data, size), read_sources(sources)):
            progress()
            if isinstance(result, str):
                dropped.setdefault(result, []).append(name)
                continue
            pictures += 1
            crops += len(result)
            file.write(result.tobytes())
        if not crops:
            reasons = ", ".join(f"{len(names)} {reason}" for reason, names in dropped.items()) or "none found"
            raise DataError(f"{', '.join(map(str, sources))}: no usable picture ({reasons})")
        file.seek(0)
        _write_header(file, crops, size)
    manifest = Manifest(size, crops, pictures, [str(source) for source in sources], dropped)
    _write_manifest(out, manifest)
    return manifest


def save_crops(out: Path, crops: NDArray[np.uint8], sources: Iterable[Path]) -> Manifest:
    """Write existing crops, (M, size, size, 3) uint8 sRGB, to the prepared folder `out`.

    Raises:
        DataError: if the folder cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with atomic.writing(out / CROPS_NAME) as file:
            np.save(file, crops)
        manifest = Manifest(crops.shape[1], len(crops), len(crops), [str(path) for path in sources], {})
        _write_manifest(out, manifest)
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror})") from error
    return manifest


def _write_manifest(out: Path, manifest: Manifest) -> None:
    with atomic.writing(out / MANIFEST_NAME) as file:
        file.write(json.dumps(asdict(manifest), indent=1).encode())


def _write_header(file: BinaryIO, crops: int, size: int) -> None:
    """Write the header of a .npy file. Its length is the same for every number of crops."""
    header = {"descr": "|u1", "fortran_order": False, "shape": (crops, size, size, 3)}
    np.lib.format.write_array_header_1_0(file, header)


def read_sources(sources: Iterable[Path]) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of every picture in folders, tar files and single files, in a stable order.

    Raises:
        DataError: if a source does not exist, or is neither a folder, nor a picture, nor a readable tar file.
    """
    for source in sources:
        if source.is_dir():
            for path in sorted(source.rglob("*")):
                if path.is_file() and path.suffix.lower() in PICTURE_SUFFIXES:
                    yield str(path.relative_to(source)), path.read_bytes()
                elif path.is_file() and TAR_SUFFIXES.intersection(map(str.lower, path.suffixes)):
                    yield from _read_tar(path)
        elif source.is_file() and source.suffix.lower() in PICTURE_SUFFIXES:
            yield source.name, source.read_bytes()
        elif source.is_file():
            yield from _read_tar(source)
        else:
            raise DataError(f"{source}: no such file or folder")


def _read_tar(path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(path) as tar:
            for entry in tar:
                if entry.isfile() and Path(entry.name).suffix.lower() in PICTURE_SUFFIXES:
                    content = tar.extractfile(entry)
                    yield entry.name, content.read() if content else b""
            read_to_end(tar)
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: not a readable tar file ({reason})") from error


def read_to_end(tar: tarfile.TarFile) -> None:
    """Read past the last entry, because only the end of a compressed archive verifies its checksum."""
    while tar.fileobj is not None and tar.fileobj.read(1 << 20):
        pass


def crop_picture(data: bytes, size: int) -> NDArray[np.uint8] | str:
    """Cut the square crops of a picture: (1 or 2, size, size, 3) uint8 sRGB, or the reason for none."""
    try:
        with Image.open(io.BytesIO(data)) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGB")
    except Exception as error:  # decoders raise all kinds of errors on damaged data
        return f"unreadable ({type(error).__name__})"
    if min(picture.size) < 16:
        return "smaller than 16 pixels"
    if mean_chroma(picture) < GRAY_CHROMA:
        return "gray"
    width, height = picture.size
    scale = size / min(width, height)
    shape = (max(size, round(width * scale)), max(size, round(height * scale)))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    pixels = cv2.resize(np.asarray(picture), shape, interpolation=interpolation)
    return np.stack([pixels[y : y + size, x : x + size] for y, x in _corners(pixels.shape[:2], size)])


def mean_chroma(picture: Image.Image) -> float:
    """Compute the mean chroma C*ab (CIE 15:2004) of a small copy of an RGB picture."""
    small = np.asarray(picture.resize((32, 32), Image.Resampling.BOX), dtype=np.float32) / 255
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB)
    return float(np.hypot(lab[..., 1], lab[..., 2]).mean())


def _corners(shape: tuple[int, ...], size: int) -> list[tuple[int, int]]:
    height, width = shape
    if max(shape) > LONG_ASPECT * min(shape):
        return [(0, 0), (height - size, width - size)]
    return [((height - size) // 2, (width - size) // 2)]


def _map_bounded(
    pool: ThreadPoolExecutor, function: Callable[[bytes], Crops], items: Iterable[tuple[str, bytes]]
) -> Iterator[tuple[str, Crops]]:
    """Map `function` over the data of (name, data) pairs in order. Holds at most `_QUEUED` in memory."""
    source = iter(items)
    waiting: list[tuple[str, Future[Crops]]] = [
        (name, pool.submit(function, item)) for name, item in islice(source, _QUEUED)
    ]
    while waiting:
        name, future = waiting.pop(0)
        yield name, future.result()
        for name, item in islice(source, 1):
            waiting.append((name, pool.submit(function, item)))

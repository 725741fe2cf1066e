"""Compare the outputs of this checkout with those of an earlier commit, to check changes to the structure.

    python tests/benchmarks/same_output.py COMMIT [VIDEO...]

Both versions run in new processes with the bundled model of COMMIT, on 200 pictures that are made here (every
format, depth, transparency, orientation, several pages, animations, damaged files) and on the given videos,
which are encoded with FFV1. Compared are

- exit codes,
- JSON lines: the fields, and the values of all but times, messages, model and batch size,
- names of the outputs,
- decoded pixels of every page, size and mode of pictures,
- decoded frames, their times, and the packets of all other streams of videos. FFV1 is lossless, so the frames
  are those that enter the encoder.

Every difference is printed on a line. The exit status is 1 if there is any.
"""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import click
import cv2
import numpy as np
from PIL import Image, ImageSequence

ROOT = Path(__file__).parents[2]
PICTURES = 200
_VARYING = ("seconds", "reason", "model", "batch", "device", "source", "destination")  # not compared by value
_MODES = {
    "avif": ("L", "RGB", "RGBA"),
    "bmp": ("1", "L", "P", "RGB"),
    "gif": ("P", "frames"),
    "jp2": ("L", "LA", "RGB", "RGBA", "I;16"),
    "jpg": ("L", "RGB", "CMYK", "truncated"),
    "png": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "RGB;16", "RGBA;16", "frames", "truncated"),
    "tif": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "RGB;16", "F", "frames", "truncated"),
    "webp": ("L", "RGB", "RGBA", "frames"),
}
_ORIENTED = ("jpg", "png", "tif", "webp")


def texture(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Make a gray picture with shapes and grain, (height, width) floats in [0, 1]."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = np.sin(x * random.uniform(5, 30) + y * random.uniform(5, 30)) * 0.2
    disc = (np.hypot(x - random.uniform(0.2, 0.8), y - random.uniform(0.1, 0.5)) < 0.2) * 0.3
    return np.clip(0.4 + waves + disc + random.normal(0, 0.03, (height, width)), 0, 1)


def write_picture(path: Path, mode: str, orientation: int, number: int) -> None:
    """Write a picture of a mode: a Pillow mode, one of 16 bits, `frames` for several, or `truncated`."""
    random = np.random.default_rng(number)
    gray = texture(random, *random.integers(40, 220, 2))
    if mode in ("RGB;16", "RGBA;16"):
        channels = 4 if mode == "RGBA;16" else 3
        cv2.imwrite(str(path), np.uint16(np.dstack([gray] * channels) * 65535))
        return
    if mode == "I;16":
        Image.fromarray((gray * 65535).astype(np.uint16)).save(path)
        return
    image = Image.fromarray(np.uint8(gray * 255))
    options: dict[str, Any] = {}
    if mode == "frames":
        options = {
            "save_all": True,
            "append_images": [image.rotate(180), image.rotate(90).resize(image.size)],
        }
    elif mode == "F":
        image = Image.fromarray(gray.astype(np.float32))
    elif mode != "truncated":
        image = image.convert("RGBA" if mode == "RGBA" else mode)
        if mode in ("LA", "RGBA"):
            image.putalpha(Image.fromarray(np.uint8(texture(random, *gray.shape) * 255)))
    if orientation > 1:
        exif = Image.Exif()
        exif[274] = orientation
        options["exif"] = exif
    image.save(path, **options)
    if mode == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def write_pictures(folder: Path) -> None:
    """Write 200 pictures into a folder and its subfolders."""
    cases = [
        (ending, mode, orientation)
        for ending, modes in _MODES.items()
        for mode in modes
        for orientation in (
            (1, 3, 6, 8) if ending in _ORIENTED and ";16" not in mode and mode != "F" else (1,)
        )
    ]
    for number in range(PICTURES):
        ending, mode, orientation = cases[number % len(cases)]
        path = (
            folder / f"folder {number % 5}" / f"{number:03} {mode.replace(';', '-')} {orientation}.{ending}"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        write_picture(path, mode, orientation, number)


def run(tree: Path, arguments: list[str], cwd: Path) -> tuple[int, list[dict[str, Any]]]:
    """Run `colorize` of a tree. Returns the exit code and the JSON lines, sorted by source."""
    result = subprocess.run(
        [sys.executable, "-m", "colorize_cli", "--json", "--device", "cpu", *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(tree)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
        text=True,
    )
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    return result.returncode, sorted(lines, key=lambda line: str(line["source"]))


def digests(path: Path) -> list[str]:
    """Return a digest of every decoded page of a picture or of every frame and packet of a video."""
    if path.suffix == ".mkv":
        with av.open(path) as container:
            return [
                f"{frame.pts} {hashlib.sha256(frame.to_ndarray().tobytes()).hexdigest()}"
                for packet in container.demux(video=0)
                for frame in packet.decode()
            ] + list(_other_packets(path))
    found = []
    deep = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.suffix in (".png", ".tif", ".jp2") else None
    if deep is not None and deep.dtype != np.uint8:
        found.append(f"{deep.shape} {deep.dtype} {hashlib.sha256(deep.tobytes()).hexdigest()}")
    with Image.open(path) as image:
        found += [
            f"{page.mode} {page.size} {hashlib.sha256(page.tobytes()).hexdigest()}"
            for page in ImageSequence.Iterator(image)
        ]
    return found


def _other_packets(path: Path) -> Iterator[str]:
    with av.open(path) as container:
        streams = [stream for stream in container.streams if stream.type != "video"]
        for packet in container.demux(streams) if streams else ():
            yield f"{packet.stream.index} {packet.pts} {hashlib.sha256(bytes(packet)).hexdigest()}"


def compare(then: Path, model: Path, arguments: list[str], work: Path) -> tuple[list[str], int]:
    """Run both trees into `then` and `now` below `work`. Returns differences and the number of outputs."""
    problems = []
    results = {
        name: run(tree, ["--model", str(model), *arguments, str(work / name)], work)
        for name, tree in (("then", then), ("now", ROOT))
    }
    (code_then, lines_then), (code_now, lines_now) = results["then"], results["now"]
    if code_then != code_now:
        problems.append(f"exit code {code_then}, now {code_now}")
    if len(lines_then) != len(lines_now):
        problems.append(f"{len(lines_then)} JSON lines, now {len(lines_now)}")
    for a, b in zip(lines_then, lines_now, strict=False):
        if a.keys() != b.keys():
            problems.append(f"{a['source']}: fields differ: {sorted(a.keys() ^ b.keys())}")
        problems += [
            f"{a['source']}: {name} {a[name]!r}, now {b[name]!r}"
            for name in a.keys() & b.keys() - set(_VARYING)
            if a[name] != b[name]
        ]
    outputs = {
        name: {
            path.relative_to(work / name): path
            for path in sorted((work / name).rglob("*"))
            if path.is_file() and ".colorize" not in path.parts
        }
        for name in results
    }
    problems += [
        f"{path}: output of one version only" for path in outputs["then"].keys() ^ outputs["now"].keys()
    ]
    for path in outputs["then"].keys() & outputs["now"].keys():
        if digests(outputs["then"][path]) != digests(outputs["now"][path]):
            problems.append(f"{path}: decoded content differs")
    if not outputs["now"]:
        problems.append(f"{arguments[-1]}: no output")
    return sorted(problems), len(outputs["now"])


@click.command(help=__doc__.split("\n\n")[0] if __doc__ else None)
@click.argument("commit")
@click.argument("videos", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(commit: str, videos: tuple[Path, ...]) -> None:
    """Run the comparison."""
    problems = []
    with TemporaryDirectory() as name:
        folder = Path(name)
        archive = subprocess.run(
            [shutil.which("git") or "git", "archive", commit, "colorize_cli"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tree:
            tree.extractall(folder / "tree", filter="data")
        model = folder / "model.onnx"
        (folder / "tree/colorize_cli/models/default.onnx").rename(model)
        write_pictures(folder / "pictures")
        found, count = compare(folder / "tree", model, [str(folder / "pictures")], folder)
        print(f"{PICTURES} pictures, {count} outputs: {len(found)} differences")
        problems += found
        for video in videos:
            work = folder / video.stem
            (work / "in").mkdir(parents=True)
            copy = work / "in" / f"{video.stem}.mkv"  # Matroska can contain FFV1
            (shutil.copyfile if video.suffix == ".mkv" else remux)(video, copy)
            options = ["--codec", "ffv1", "--if-colored", "recolor", "--overwrite"]
            found, count = compare(folder / "tree", model, [*options, str(work / "in")], work)
            print(f"{video.name}: {count} outputs, {len(found)} differences")
            problems += found
    for problem in problems:
        print(problem)
    sys.exit(1 if problems else 0)


def remux(source: Path, target: Path) -> None:
    """Remux a video into Matroska, which holds FFV1."""
    with av.open(source) as read, av.open(target, "w") as written:
        streams = {stream.index: written.add_stream_from_template(stream) for stream in read.streams}
        for packet in read.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                written.mux(packet)


if __name__ == "__main__":
    main()

"""Run `colorize` on damaged files of all kinds, and count what must never happen.

    python tests/benchmarks/fuzz.py --minutes 30 --keep /tmp/findings

Small pictures of each format, films, models, manifests, hints and lists are damaged at random. Each child
process gets several. Counted are crashes, hangs, processes of more than 2 GiB, tracebacks, wrong exit codes,
and outputs that are wrong though their outcome is "done": another decoder finds the input damaged, and the
output differs from that of the undamaged input. The files of each finding are kept.
"""

import io
import json
import random
import shutil
import struct
import sys
import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path

import av
import click
import imagecodecs
import numpy as np
import simplejpeg
from PIL import Image

from tests.helpers.animations import animation
from tests.helpers.child import HANG, Ended, measured
from tests.helpers.damage import damaged
from tests.helpers.heif_files import heic, picture
from tests.helpers.models import write_model
from tests.helpers.png_files import chunk
from tests.helpers.tiff_files import SEPARATE, tiff, written
from tests.helpers.videos import Recipe, make

HANG_SECONDS, MOST_MEMORY = 30, 2 << 30
KINDS = ("picture", "picture", "picture", "film", "model", "manifest", "hints", "list")
PER_RUN = 8
HINTS = json.dumps(
    {
        "points": [{"x": 10, "y": 20, "color": "#aa3311", "radius": 4}],
        "strokes": [{"points": [[5, 5], [40, 12]], "color": "navy", "width": 6}],
    }
).encode()


def photo() -> np.ndarray:
    """Make a gray picture of smooth shapes and noise, (80, 96) uint8."""
    y, x = np.mgrid[0:80, 0:96]
    noise = np.random.default_rng(0).integers(0, 30, (80, 96))
    return (110 + 80 * np.sin(x / 9) * np.cos(y / 7) + noise).astype(np.uint8)


_NOTHING = "colorize: no pictures or films in "  # the message of a failed run without outcomes


def saved(format_: str, mode: str = "L", **options: object) -> bytes:
    """Return the photo in a format of Pillow's."""
    file = io.BytesIO()
    exif = Image.Exif()
    exif[274], exif[271] = 6, "maker"
    if format_ in ("JPEG", "PNG", "WEBP", "AVIF", "TIFF"):
        options["exif"] = exif
    Image.fromarray(photo()).convert(mode).save(file, format_, **options)
    return file.getvalue()


def pictures() -> dict[str, bytes]:
    """Return an undamaged file of each kind by name."""
    deep = photo().astype(np.uint16) * 257
    text = chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n8\n4949"))
    png = saved("PNG")
    return {
        "gray.jpg": saved("JPEG"),
        "progressive.jpg": saved("JPEG", "RGB", progressive=True),
        "cmyk.jpg": saved("JPEG", "CMYK"),
        "12.jpg": imagecodecs.jpeg8_encode(deep >> 4, bitspersample=12),
        "gray.png": png[:33] + text + png[33:],
        "stored.png": saved("PNG", compress_level=0),
        "palette.png": saved("PNG", "P", transparency=3),
        "deep.png": imagecodecs.png_encode(np.dstack([deep] * 4)),
        "animated.png": animation("PNG", "RGBA"),
        "a.webp": saved("WEBP"),
        "lossless.webp": saved("WEBP", "RGBA", lossless=True),
        "animated.webp": animation("WEBP", "RGBA"),
        "a.avif": saved("AVIF"),
        "a.gif": saved("GIF"),
        "animated.gif": animation("GIF", disposal=2),
        "a.bmp": saved("BMP"),
        "a.jp2": saved("JPEG2000", "RGB"),
        "a.heic": heic(picture(photo())),
        "raw.tif": saved("TIFF"),
        "lzw.tif": saved("TIFF", "RGB", compression="tiff_lzw"),
        "fax.tif": saved("TIFF", "1", compression="group4"),
        "jpeg.tif": saved("TIFF", "RGB", compression="jpeg"),
        "pages.tif": tiff((photo(), {}), (deep, {}), (photo(), {274: 8})),
        "planar.tif": written(np.stack([deep] * 3), compression="deflate", predictor=True, **SEPARATE),
        "big.tif": written(photo(), bigtiff=True, byteorder=">", rowsperstrip=5),
        "float.tif": tiff((np.dstack([photo() / np.float32(255)] * 3), {})),
    }


def films(folder: Path) -> dict[str, bytes]:
    """Return a small film of each container by name."""
    codecs = {"a.mp4": "libx264", "a.mkv": "ffv1", "a.avi": "mpeg4", "a.ts": "libx264"}
    for name, codec in codecs.items():
        make(folder / name, Recipe(frames=6, codec=codec, options={}))
    return {name: (folder / name).read_bytes() for name in codecs}


def finds_damage(name: str, content: bytes) -> bool:
    """Return True if another decoder, or the checksums of the format, say that a file is damaged."""
    try:
        if name.endswith(".png"):
            at, whole = 8, True
            while at + 12 <= len(content):
                (length,) = struct.unpack_from(">I", content, at)
                body, kind = content[at + 4 : at + 8 + length], content[at + 4 : at + 8]
                checksum = content[at + 8 + length : at + 12 + length]
                whole = whole and (kind != b"IDAT" or checksum == struct.pack(">I", zlib.crc32(body)))
                at += 12 + length
            return not whole
        if name.endswith(".jpg") and name != "12.jpg":
            simplejpeg.decode_jpeg(content)
        elif name.endswith((".mp4", ".mkv", ".avi", ".ts")):
            with av.open(io.BytesIO(content)) as film:
                return not list(film.decode(video=0))
        else:
            with Image.open(io.BytesIO(content)) as image:
                for number in range(getattr(image, "n_frames", 1)):
                    image.seek(number)
                    image.load()
    except Exception:  # any error of the other decoder counts
        return name not in ("12.jpg", "a.heic", "planar.tif", "big.tif", "pages.tif", "float.tif", "deep.png")
    return False


def pixels(path: Path) -> bytes:
    """Return the decoded pixels of an output."""
    with Image.open(path) as image:
        return image.convert("RGBA").tobytes()


class Case:
    """Makes the inputs of one run, and judges what came of it."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        """Make the undamaged files, and their outputs."""
        self.folder, self.chance = folder, chance
        self.model = write_model(folder / "model.onnx", (0.4, -0.3), (-20, 30))
        self.pictures, self.films = pictures(), films(folder)
        self._fill(self.pictures)
        ended = self._run(folder / "right", folder / "in")
        if ended.code:
            raise SystemExit(f"undamaged files fail: {ended.err}")
        outputs = (path for path in (folder / "right").glob("*/*") if ".colorize" not in path.parts)
        self.right = {path.parent.name: pixels(path) for path in outputs}

    def _run(self, output: Path, *arguments: object, model: Path | None = None) -> Ended:
        options = ["--json", "--if-colored", "recolor", "--model", model or self.model]
        return measured(*options, *arguments, output, seconds=HANG_SECONDS)

    def _fill(self, files: dict[str, bytes]) -> None:
        """Write the inputs, each in a directory of its name, since stems repeat."""
        shutil.rmtree(self.folder / "in", ignore_errors=True)
        for name, content in files.items():
            (self.folder / "in" / name).mkdir(parents=True)
            (self.folder / "in" / name / name).write_bytes(content)

    def once(self) -> tuple[str, list[str]]:
        """Run once. Returns the kind of damaged file, and the findings."""
        source, output, extra = (self.folder / name for name in ("in", "out", "extra"))
        shutil.rmtree(output, ignore_errors=True)
        kind = self.chance.choice(KINDS)
        files = {"gray.png": self.pictures["gray.png"]}
        if kind in ("picture", "film"):
            whole = self.pictures if kind == "picture" else self.films
            names = self.chance.sample(sorted(whole), min(PER_RUN, len(whole)))
            files = {name: damaged(whole[name], self.chance) for name in names}
        self._fill(files)
        if kind == "model":
            extra.write_bytes(damaged(self.model.read_bytes(), self.chance))
            ended = self._run(output, source, model=extra)
        elif kind == "hints":
            painted = saved("PNG", "P", transparency=3)
            extra.write_bytes(damaged(self.chance.choice([HINTS, painted]), self.chance))
            ended = self._run(output, "--hints", extra, source)
        elif kind == "list":
            extra.write_bytes(damaged(f"{source}/gray.png/gray.png\n".encode() * 3, self.chance))
            ended = self._run(output, "--files-from", extra)
        else:
            ended = self._run(output, source)
        if kind == "manifest":
            for path in filter(Path.is_file, (output / ".colorize").iterdir()):
                path.write_bytes(damaged(path.read_bytes(), self.chance))
            ended = self._run(output, source)
        return kind, self._findings(ended, files if kind in ("picture", "film") else {})

    def _findings(self, ended: Ended, files: dict[str, bytes]) -> list[str]:
        found = []
        if ended.code not in (0, 1, 2):
            found.append("hang" if ended.code == HANG else f"crash {ended.code}")
        if ended.memory > MOST_MEMORY:
            found.append("memory")
        if "Traceback" in ended.err:
            found.append("traceback")
        try:
            outcomes = [json.loads(line) for line in ended.out.splitlines()]
        except ValueError:
            return [*found, "text on standard output"]
        failed = any(outcome["status"] == "failed" for outcome in outcomes) or _NOTHING in ended.err
        if ended.code in (0, 1) and failed != (ended.code == 1):
            found.append("exit code")
        done = [Path(each["destination"]) for each in outcomes if files and each["status"] == "done"]
        for path in done:
            name = path.parent.name
            if not finds_damage(name, files[name]):
                continue
            if name in self.films or pixels(path) != self.right[name]:
                found.append(f"wrong done {name}")
        return found


@click.command()
@click.option("--minutes", default=30.0, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--keep", type=click.Path(path_type=Path), default=Path("findings"), show_default=True)
def main(minutes: float, seed: int, keep: Path) -> None:
    """Fuzz for some minutes, and print the findings and the numbers of runs by kind."""
    runs: Counter[str] = Counter()
    findings: Counter[str] = Counter()
    end = time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory() as folder:
        case = Case(Path(folder), random.Random(seed))  # noqa: S311 - not for secrets
        while time.monotonic() < end:
            kind, found = case.once()
            runs[kind] += 1
            for each in found:
                findings[f"{kind}: {each}"] += 1
                click.echo(f"run {runs.total()}, {kind}: {each}")
                shutil.copytree(folder, keep / f"{seed}-{runs.total()}", dirs_exist_ok=True)
    click.echo(json.dumps({"runs": runs, "findings": findings}))
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()

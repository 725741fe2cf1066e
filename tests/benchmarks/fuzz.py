"""Run `colorize` on damaged files of all kinds, and count what must never happen.

    python tests/benchmarks/fuzz.py --minutes 30 --keep /tmp/findings

Small pictures of each format, films, models, manifests, hints and lists are damaged at random. Each child process
gets several. Counted are crashes, hangs, processes of more than 2 GiB, tracebacks, wrong exit codes, and outputs
that are wrong though their outcome is "done": another decoder finds the input damaged, and the output differs
from the output of the undamaged input. The files of each finding are kept.
"""

import io
import json
import os
import random
import shutil
import struct
import subprocess
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
from tests.helpers.heif_files import heic, picture
from tests.helpers.models import write_model
from tests.helpers.png_files import chunk
from tests.helpers.tiff_files import SEPARATE, tiff, written
from tests.helpers.videos import Recipe, make

HANG, MOST_MEMORY = 30, 2 << 30
PER_RUN = 8
NUMBERS = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
# Starts the command from a small process: a child's peak memory begins with that of the process that started it.
STARTER = (
    "import json,os,subprocess,sys;p=subprocess.Popen(sys.argv[1:]);"
    "_,s,u=os.wait4(p.pid,0);print('\\n'+json.dumps([os.waitstatus_to_exitcode(s),u.ru_maxrss*1024]))"
)
HINTS = b'{"points": [{"x": 10, "y": 20, "color": "#aa3311", "radius": 4}], "strokes": [{"points": [[5, 5], [40, 12]], "color": "navy", "width": 6}]}'


def photo() -> np.ndarray:
    """Make a gray picture of smooth shapes and noise, (80, 96) uint8."""
    y, x = np.mgrid[0:80, 0:96]
    noise = np.random.default_rng(0).integers(0, 30, (80, 96))
    return (110 + 80 * np.sin(x / 9) * np.cos(y / 7) + noise).astype(np.uint8)


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


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Damage a file in one to four places, half of them near the head, where the structure is."""
    data = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        end = len(data)
        if not end:
            break
        start = chance.randrange(min(end, 160) if chance.random() < 0.5 else end)
        size = chance.randint(1, 4) if chance.random() < 0.5 else chance.randint(1, max(1, end // 3))
        match chance.choice(("cut", "bit", "bit", "byte", "zeros", "insert", "delete", "repeat", "number")):
            case "cut":
                del data[start:]
            case "bit":
                data[start] ^= 1 << chance.randrange(8)
            case "byte":
                data[start] = chance.randrange(256)
            case "zeros":
                data[start : start + size] = bytes(len(data[start : start + size]))
            case "insert":
                data[start:start] = chance.randbytes(min(size, 40))
            case "delete":
                del data[start : start + size]
            case "repeat":
                data[start:start] = data[start : start + size]
            case "number":
                packed = struct.pack(chance.choice("<>") + "I", chance.choice(NUMBERS))
                data[start : start + 4] = packed
    return bytes(data)


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


def run(arguments: list[str | Path], folder: Path) -> tuple[int, int, str, str]:
    """Run the command. Returns exit code (124 for a hang), peak memory in bytes, standard output and error."""
    command = [sys.executable, "-S", "-c", STARTER, sys.executable, "-m", "colorize_cli", "--device", "cpu"]
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        process = subprocess.Popen(
            [*command, *map(str, arguments)], stdout=out, stderr=err, start_new_session=True
        )
        try:
            process.wait(HANG)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
    texts = [(folder / name).read_text(errors="replace") for name in ("stdout", "stderr")]
    lines = texts[0].splitlines()
    code, memory = json.loads(lines[-1]) if process.returncode == 0 and lines else (124, 0)
    return code, memory, "\n".join(lines[:-1]), texts[1]


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
        self.right = self._outputs(self.pictures)

    def _outputs(self, files: dict[str, bytes]) -> dict[str, bytes]:
        source, output = self._filled(files), self.folder / "right"
        code, _, _, said = run(
            ["-q", "--model", self.model, "--if-colored", "recolor", source, output], self.folder
        )
        if code:
            raise SystemExit(f"undamaged files fail: {said}")
        found = {
            p.parent.name: pixels(p)
            for p in output.rglob("*.*")
            if p.is_file() and ".colorize" not in p.parts
        }
        return found

    def _filled(self, files: dict[str, bytes]) -> Path:
        """Write files, each in a directory of its name, since stems repeat."""
        shutil.rmtree(self.folder / "in", ignore_errors=True)
        for name, content in files.items():
            (self.folder / "in" / name).mkdir(parents=True)
            (self.folder / "in" / name / name).write_bytes(content)
        return self.folder / "in"

    def once(self) -> tuple[str, list[str]]:
        """Run once. Returns the kind of damaged file, and the findings."""
        shutil.rmtree(self.folder / "out", ignore_errors=True)
        kind = self.chance.choice(
            ("picture", "picture", "picture", "film", "model", "manifest", "hints", "list")
        )
        files, options = {"gray.png": self.pictures["gray.png"]}, ["--json", "--if-colored", "recolor"]
        model, inputs = self.model, [self.folder / "in"]
        if kind in ("picture", "film"):
            whole = self.pictures if kind == "picture" else self.films
            names = self.chance.sample(sorted(whole), min(PER_RUN, len(whole)))
            files = {name: damaged(whole[name], self.chance) for name in names}
        self._filled(files)
        extra = self.folder / "extra"
        if kind == "model":
            model = self.folder / "damaged.onnx"
            model.write_bytes(damaged(self.model.read_bytes(), self.chance))
        elif kind == "hints":
            extra.write_bytes(
                damaged(self.chance.choice([HINTS, saved("PNG", "P", transparency=3)]), self.chance)
            )
            options += ["--hints", str(extra)]
        elif kind == "list":
            extra.write_bytes(damaged(f"{self.folder}/in/gray.png/gray.png\n".encode() * 3, self.chance))
            inputs, options = [], [*options, "--files-from", str(extra)]
        elif kind == "manifest":
            run([*options, "--model", model, *inputs, self.folder / "out"], self.folder)
            for path in (self.folder / "out" / ".colorize").iterdir():
                if path.is_file():
                    path.write_bytes(damaged(path.read_bytes(), self.chance))
        code, memory, out, said = run([*options, "--model", model, *inputs, self.folder / "out"], self.folder)
        found = []
        if code not in (0, 1, 2):
            found.append("hang" if code == 124 else f"crash {code}")
        if memory > MOST_MEMORY:
            found.append("memory")
        if "Traceback" in said:
            found.append("traceback")
        try:
            outcomes = [json.loads(line) for line in out.splitlines() if line]
        except ValueError:
            return kind, [*found, "text on standard output"]
        if code in (0, 1) and (code == 1) != any(each["status"] == "failed" for each in outcomes):
            found.append("exit code")
        for outcome in outcomes if kind in ("picture", "film") else []:
            name = Path(outcome["source"]).name
            if outcome["status"] == "done" and finds_damage(name, files[name]):
                if kind == "film" or pixels(Path(outcome["destination"])) != self.right[name]:
                    found.append(f"wrong done {name}")
        return kind, found


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

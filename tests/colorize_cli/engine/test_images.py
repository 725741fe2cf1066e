"""Failures within the stages of pictures, and the stop of a file of many pages."""

import struct
import threading
import time

import cv2
import numpy as np
import pytest
from PIL import Image

from colorize_cli.core import formats
from colorize_cli.core.settings import Settings
from colorize_cli.engine import ENGINES, images
from colorize_cli.image import reader
from colorize_cli.storage import discovery
from tests.helpers.cli import invoke
from tests.helpers.tiff_files import tiff

DAMAGED = "damaged: it cannot be decoded"
PLANTED = {
    "attribute": (AttributeError("'BytesIO' object has no attribute 'name'"), DAMAGED),
    "index": (IndexError("list index out of range"), DAMAGED),
    "struct": (struct.error("unpack requires a buffer of 8 bytes"), DAMAGED),
    "opencv": (cv2.error("resize.cpp:4217: (-215:Assertion failed)"), DAMAGED),
    "recursion": (RecursionError("maximum recursion depth exceeded"), DAMAGED),
    "text": (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), DAMAGED),
    "memory": (MemoryError("Unable to allocate 21.5 GiB"), "not enough memory"),
    "opencv memory": (cv2.error("(-4:Insufficient memory) Failed"), "not enough memory"),
    "system": (OSError(5, "Input/output error", "a/.colorize-42.tmp"), "Input/output error"),
    "pillow": (OSError("image file is truncated\n(5 bytes)"), "image file is truncated (5 bytes)"),
    "library": (RuntimeError("IDAT:\nCRC error"), "damaged: IDAT: CRC error"),
}


def raising(error: Exception):
    def planted(*_, **__):
        raise error

    return planted


@pytest.fixture
def colorize(models, tmp_path):
    for name in ("a.png", "b.png"):
        Image.fromarray(np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)).save(tmp_path / name)

    def run() -> tuple[int, list[str]]:
        result = invoke(
            "-q", "--model", models.gray, "--device", "cpu", tmp_path / "a.png", tmp_path / "out.png"
        )
        return result.exit_code, result.stderr.splitlines()

    return run


@pytest.mark.parametrize("name", PLANTED)
def test_error_of_a_decoder_is_one_line_with_the_name_of_the_file(colorize, tmp_path, monkeypatch, name):
    error, reason = PLANTED[name]
    monkeypatch.setattr(reader, "from_image", raising(error))
    assert colorize() == (1, [f"{tmp_path}/a.png: {reason}"])


@pytest.mark.parametrize("name", ["attribute", "opencv", "memory", "opencv memory", "recursion"])
def test_error_of_a_later_stage_is_one_line_with_the_name_of_the_file(colorize, tmp_path, monkeypatch, name):
    error, reason = PLANTED[name]
    monkeypatch.setattr(images, "compose", raising(error))
    code, (line,) = colorize()
    internal = f"internal error, please report it: {type(error).__name__}: {error}"
    assert (code, line) == (1, f"{tmp_path}/a.png: {reason if 'memory' in name else internal}")


def test_stop_within_a_file_of_many_pages_colors_no_further_page(models, tmp_path, monkeypatch):
    (tmp_path / "a.tif").write_bytes(tiff(*[(np.zeros((16, 16), np.uint8), {})] * 300))
    Image.new("L", (16, 16)).save(tmp_path / "b.png")
    begun, colored = threading.Event(), []

    def slow(lightness, ab, *_):
        begun.set()
        time.sleep(0.02)
        colored.append(1)
        return np.zeros((*lightness.shape, 3), np.uint8)

    monkeypatch.setattr(images, "compose", slow)
    plan = discovery.plan([tmp_path / "a.tif", tmp_path / "b.png"], tmp_path / "out", formats.endings())
    running = ENGINES["local"](plan, Settings(model=models.gray, device="cpu", workers=2), print)
    next(running)  # the small picture
    assert begun.wait(10)
    running.close()
    count = len(colored)
    time.sleep(0.2)
    assert len(colored) == count < 300
    assert not (tmp_path / "out" / "a.tif").exists()

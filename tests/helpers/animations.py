"""Animations, made and read with Pillow."""

import io

import numpy as np
from PIL import Image

FRAMES, SIZE = 5, (32, 24)
DURATIONS = [40, 70, 110, 30, 250]
LOSSLESS = {
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    "GIF": {},
    "PNG": {},
    "WEBP": {"lossless": True, "exact": True},
}


def moving(mode: str = "L") -> list[Image.Image]:
    """Make frames of a bright square that moves over a ramp. With alpha, the left is transparent."""
    images = []
    for number in range(FRAMES):
        codes = np.tile(np.linspace(20, 200, SIZE[0]).astype(np.uint8), (SIZE[1], 1))
        codes[4 + 3 * number :, 5 * number : 5 * number + 8] = 240
        image = Image.fromarray(codes).convert(mode)
        if mode.endswith("A"):
            alpha = np.full(codes.shape, 255, np.uint8)
            alpha[:, : 4 + number] = 0
            image.putalpha(Image.fromarray(alpha))
        images.append(image)
    return images


def animation(format_: str, mode: str = "L", **options) -> bytes:
    first, *others = moving(mode)
    saving = {"duration": DURATIONS, "loop": 3} | LOSSLESS[format_] | options
    file = io.BytesIO()
    first.save(file, format_, save_all=True, append_images=others, **saving)
    return file.getvalue()


def shown(data: bytes) -> list[np.ndarray]:
    """Return each frame, (H, W, 4), as Pillow composes it."""
    with Image.open(io.BytesIO(data)) as image:
        found = []
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            found.append(np.asarray(image.convert("RGBA")))
        return found


def timing(data: bytes) -> tuple[list[float], int | None]:
    """Return the durations and the number of loops."""
    with Image.open(io.BytesIO(data)) as image:
        durations = []
        for number in range(image.n_frames):
            image.seek(number)
            image.load()
            durations.append(image.info["duration"])
        return durations, image.info.get("loop")

"""HEIF files, made with pillow-heif."""

import io

import numpy as np
import pillow_heif
from PIL import Image


def heic(*pictures: Image.Image, primary: int = 0, **options) -> bytes:
    file, container = io.BytesIO(), pillow_heif.HeifFile()
    for picture in pictures:
        container.add_from_pillow(picture)
    container.save(file, quality=95, primary_index=primary, **options)
    return file.getvalue()


def picture(codes: np.ndarray, **info) -> Image.Image:
    image = Image.fromarray(codes).convert("RGB")
    image.info |= info
    return image

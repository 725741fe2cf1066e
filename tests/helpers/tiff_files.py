"""TIFF files of any layout."""

import io
import struct

import numpy as np
import tifffile
from PIL import TiffImagePlugin

SUBFILE_TYPE, MAKE, ORIENTATION, ACROSS, DOWN, UNIT, EXTRA_SAMPLES, ICC = (
    254, 271, 274, 282, 283, 296, 338, 34675,
)  # fmt: skip


def tiff(*pages: tuple[np.ndarray, dict]) -> bytes:
    """Make a TIFF 6.0 of uncompressed pages: samples (H, W) or (H, W, channels), and tags."""
    file = io.BytesIO(struct.pack("<2sHI", b"II", 42, 0))
    link = 4
    for array, tags in pages:
        samples = np.atleast_3d(array)
        height, width, channels = samples.shape
        data = samples.tobytes()
        directory = TiffImagePlugin.ImageFileDirectory_v2(b"II*\0\x08\0\0\0")
        bits = 8 * samples.itemsize
        directory.update({256: width, 257: height, 258: (bits,) * channels, 259: 1, 277: channels})
        directory.update({262: 2 if channels >= 3 else 1, 273: (0,), 278: height, 279: (len(data),), 284: 1})
        if array.dtype.kind == "f":
            directory[339] = (3,) * channels
        if ICC in tags:
            directory.tagtype[ICC] = 7
        directory.update(tags)
        start = file.seek(0, io.SEEK_END)
        body = directory.tobytes(start)
        file.write(body + data)
        file.seek(link)
        file.write(struct.pack("<I", start))
        link = start + 2 + 12 * struct.unpack_from("<H", body)[0]
    return file.getvalue()


def written(array: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


SEPARATE = {"photometric": "rgb", "planarconfig": "separate"}

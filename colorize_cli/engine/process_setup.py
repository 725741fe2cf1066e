"""Process-wide settings of libraries, applied once before any image is processed.

OpenCV: one thread. Files and frames are processed in parallel already, and OpenCV would start a thread per
core in each of them.

glibc: memory of freed arrays is kept for the next ones (`mallopt(3)`). By default glibc returns every block
above 128 KiB to the kernel at once and faults it in again page by page. For the chroma of a 720-line video
that multiplies the time by 2.3. Other C libraries are left unchanged.

Pillow: no limit on the pixels of a picture; `Settings.max_pixels` replaces it.

Python: the objects of loaded modules live until the process ends, so the garbage collector skips them, also
at exit.
"""

import contextlib
import ctypes
import gc

import cv2
from PIL import Image

# Numbers of `mallopt`'s parameters in malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
# Values in bytes. Blocks above _KEPT_BLOCK are returned to the kernel. Otherwise a thread that reads large
# scans would keep Pillow's blocks of 16 MiB for ever.
_KEPT_BLOCK = 12 << 20
_KEPT, _PADDING = 128 << 20, 16 << 20


def prepare() -> None:
    """Apply the settings above. Call after all imports; idempotent."""
    gc.freeze()
    gc.enable()
    Image.MAX_IMAGE_PIXELS = None
    cv2.setNumThreads(1)
    cv2.utils.logging.setLogLevel(0)  # we report an unreadable file once, with its name
    with contextlib.suppress(OSError, AttributeError, TypeError):
        libc = ctypes.CDLL(None)
        for parameter, value in (
            (_MMAP_THRESHOLD, _KEPT_BLOCK),
            (_TRIM_THRESHOLD, _KEPT),
            (_TOP_PAD, _PADDING),
        ):
            libc.mallopt(parameter, value)

"""What this process asks of its libraries, once, before it works on pictures.

Work in parallel is by files and frames, so that OpenCV, which would start a thread for each core in every one
of them, is to use one.

Memory of arrays that are no more is kept for the next ones. By itself glibc gives everything above 128 KiB
back to the kernel at once and gets it anew, page by page, which for the chroma of a film takes as long as the
work itself (2.3 times the time for 720 lines). That is `mallopt(3)`; where there is another C library nothing
is changed.

What modules consist of stays until the process ends: Python's collector need not look at it again and again,
at the end of the process once more.
"""

import contextlib
import ctypes
import gc

import cv2

# Numbers of `mallopt`'s parameters in malloc.h, and what they become, in bytes.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
# Larger blocks are given back: Pillow's for instance, of 16 MiB each, which a thread that reads large scans
# would else keep for ever.
_KEPT_BLOCK = 12 << 20
_KEPT, _PADDING = 128 << 20, 16 << 20


def prepare() -> None:
    """Does so, when all modules are loaded; more than once does no harm."""
    gc.freeze()
    gc.enable()
    cv2.setNumThreads(1)
    cv2.utils.logging.setLogLevel(0)  # what it cannot read is said once, with the name of the file
    with contextlib.suppress(OSError, AttributeError, TypeError):
        libc = ctypes.CDLL(None)
        for parameter, value in (
            (_MMAP_THRESHOLD, _KEPT_BLOCK),
            (_TRIM_THRESHOLD, _KEPT),
            (_TOP_PAD, _PADDING),
        ):
            libc.mallopt(parameter, value)

"""Query the NVIDIA driver and load CUDA's shared libraries."""

import ctypes
import sys
from dataclasses import dataclass

NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE
_NAME = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


@dataclass(frozen=True)
class Driver:
    """State of an NVIDIA driver.

    Attributes:
        cuda: Newest CUDA version that it supports, major and minor.
        gpus: Names of its GPUs.
        code: CUDA error code of its initialization; 0 if it works.
        error: Error message; empty if it works.
    """

    cuda: tuple[int, int]
    gpus: tuple[str, ...]
    code: int = 0
    error: str = ""


def is_installed() -> bool:
    """Return True if a driver is installed, working or not."""
    return library(_NAME) is not None


def library_names(major: int) -> list[str]:
    """Return file names of the CUDA libraries that onnxruntime uses. Some have separate version numbers."""
    versions = {
        "cudart": major,
        "cublasLt": major,
        "cublas": major,
        "cufft": major - 1,
        "curand": 10,
        "cudnn": 9 if major >= 12 else 8,
    }
    if sys.platform == "win32":
        return [f"{name}64_{version}.dll" for name, version in versions.items()]
    return [f"lib{name}.so.{version}" for name, version in versions.items()]


def library(name: str) -> ctypes.CDLL | None:
    """Load a shared library of the system. Returns None if it cannot be loaded."""
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None


def ask() -> Driver | None:
    """Query the NVIDIA driver through the CUDA Driver API. Returns None if none is installed."""
    cuda = library(_NAME)
    if cuda is None:
        return None
    code = cuda.cuInit(0)
    if code:
        text = ctypes.c_char_p()
        cuda.cuGetErrorString(code, ctypes.byref(text))
        return Driver((0, 0), (), code, f"{(text.value or b'unknown error').decode()} (CUDA error {code})")
    version, count, name = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(256)
    cuda.cuDriverGetVersion(ctypes.byref(version))
    cuda.cuDeviceGetCount(ctypes.byref(count))
    gpus = []
    for index in range(count.value):
        cuda.cuDeviceGetName(name, len(name), index)
        gpus.append(name.value.decode(errors="replace"))
    return Driver((version.value // 1000, version.value % 1000 // 10), tuple(gpus))

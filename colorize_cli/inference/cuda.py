"""The NVIDIA driver: whether there is one, what it offers, and which libraries of CUDA load."""

import ctypes
import sys
from dataclasses import dataclass

NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE
_NAME = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


@dataclass(frozen=True)
class Driver:
    """An NVIDIA driver: the newest CUDA it can run, the GPUs it offers, and how it fails if it does."""

    cuda: tuple[int, int]
    gpus: tuple[str, ...]
    code: int = 0
    error: str = ""


def is_installed() -> bool:
    """Whether there is a driver, which need not work."""
    return library(_NAME) is not None


def library_names(major: int) -> list[str]:
    """File names of the libraries that onnxruntime uses of a CUDA; some count their versions on their own."""
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
    """A shared library of the system, loaded; None where it cannot be."""
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None


def ask() -> Driver | None:
    """Asks the NVIDIA driver, if there is one, through its own library (CUDA Driver API)."""
    cuda = library(_NAME)
    if cuda is None:
        return None
    code = cuda.cuInit(0)
    if code:
        said = ctypes.c_char_p()
        cuda.cuGetErrorString(code, ctypes.byref(said))
        return Driver((0, 0), (), code, f"{(said.value or b'unknown error').decode()} (CUDA error {code})")
    version, count, name = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(256)
    cuda.cuDriverGetVersion(ctypes.byref(version))
    cuda.cuDeviceGetCount(ctypes.byref(count))
    gpus = []
    for index in range(count.value):
        cuda.cuDeviceGetName(name, len(name), index)
        gpus.append(name.value.decode(errors="replace"))
    return Driver((version.value // 1000, version.value % 1000 // 10), tuple(gpus))

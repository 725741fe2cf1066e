"""Create onnxruntime sessions that run a network on the CPU or on GPUs, without fallback."""

import contextlib
import io
import os
import queue
import re
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from colorize_cli.color.lab import Floats
from colorize_cli.core.errors import DeviceError, ModelError, one_line
from colorize_cli.core.settings import available_cores
from colorize_cli.inference import cuda

if TYPE_CHECKING:
    import onnxruntime

# Phrases in error messages of onnxruntime and CUDA.
_OUT_OF_MEMORY = ("out of memory", "out_of_memory", "failed to allocate", "alloc_failed")
_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
# onnxruntime's level "fatal" prints nothing; failures arrive as exceptions.
_SILENT = 4
# The field `external_data` of a TensorProto, with its first entry, the name of a file (onnx.proto).
_EXTERNAL = re.compile(rb"\x6a.{1,2}\x0a\x08location\x12", re.DOTALL)


class Sessions:
    """Pool of sessions: one per GPU, or one for the CPU that is run several times at once.

    Attributes:
        count: Number of concurrent runs.
        batch_limit: Largest batch that fits in memory; None while every batch did.
        shares_memory: True if concurrent runs use the same memory.
    """

    def __init__(self, sessions: "Sequence[onnxruntime.InferenceSession]", parallel: int = 1) -> None:
        """Make a pool in which each session runs up to `parallel` times at once."""
        self.count = len(sessions) * parallel
        self.batch_limit: int | None = None
        self.shares_memory = parallel > 1
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._alone = threading.Lock()
        for session in [*sessions] * parallel:
            self._idle.put(session)

    def run(self, outputs: list[str], feed: dict[str, Floats], *, alone: bool = False) -> list[Any]:
        """Run an idle session, waiting for one. With `alone`, wait until all are idle and keep them so."""
        with self._alone if alone else contextlib.nullcontext():
            taken = [self._idle.get() for _ in range(self.count if alone else 1)]
        try:
            return list(taken[0].run(outputs, feed))
        finally:
            for session in taken:
                self._idle.put(session)


def means_out_of_memory(error: Exception) -> bool:
    """Return True if an exception of a session reports that memory ran out."""
    return any(sign in str(error).lower() for sign in _OUT_OF_MEMORY)


def on_cpu(data: bytes, threads: int | None = None, parallel: int = 1) -> "onnxruntime.InferenceSession":
    """Create a session on the CPU.

    Args:
        data: Content of an ONNX file.
        threads: Threads shared by concurrent runs; None for the number of cores.
        parallel: Number of concurrent runs. Each has its share of the threads.

    Raises:
        ModelError: The content is not an ONNX file.
    """
    import onnxruntime

    options = _options(data)
    options.intra_op_num_threads = max(1, (threads or available_cores()) // parallel)
    # Spinning threads would take the cores from the codecs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(data, options, providers=[_CPU], enable_fallback=0)
    except Exception as error:
        raise ModelError(f"not an ONNX file that can be loaded: {one_line(error)}") from error
    session.disable_fallback()
    return session


def on_gpus(data: bytes, gpus: list[int]) -> "list[onnxruntime.InferenceSession]":
    """Create a CUDA session on each of the GPUs.

    Args:
        data: Content of an ONNX file.
        gpus: Numbers of the GPUs.

    Raises:
        ModelError: The content is not an ONNX file.
        DeviceError: CUDA does not work, or a part of the network would run elsewhere.
    """
    import onnxruntime

    if _CUDA not in onnxruntime.get_available_providers():
        raise DeviceError("this onnxruntime was built without CUDA (see colorize doctor)")
    if not cuda.is_installed():
        raise DeviceError("no NVIDIA driver is installed here")
    # It prints to stdout. The sessions below show if loading worked.
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        onnxruntime.preload_dlls()
    options = _options(data)
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    with _silence(onnxruntime):
        try:
            sessions = [
                onnxruntime.InferenceSession(
                    data,
                    options,
                    providers=[(_CUDA, {"cudnn_conv_algo_search": "HEURISTIC", "device_id": str(gpu)})],
                    enable_fallback=0,
                )
                for gpu in gpus
            ]
        except Exception as error:
            on_cpu(data, threads=1)  # raises ModelError if the file itself is invalid
            hint = printed.getvalue().strip().partition("\n")[0]
            why = f"{one_line(error)} ({hint})" if hint else one_line(error)
            raise DeviceError(f"CUDA cannot run the whole network: {why}") from error
    if any(session.get_providers()[0] != _CUDA for session in sessions):
        raise DeviceError(
            f"CUDA {onnxruntime.cuda_version} or cuDNN did not load: {printed.getvalue().strip()}"
        )
    for session in sessions:
        session.disable_fallback()
    return sessions


def _options(data: bytes) -> "onnxruntime.SessionOptions":
    import onnxruntime

    if _EXTERNAL.search(data):
        raise ModelError("it keeps weights in other files (ONNX external data); save it as a single file")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _SILENT
    # By default, files would be looked for in the working directory. This is no directory.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    return options


@contextlib.contextmanager
def _silence(onnxruntime: Any) -> Any:
    """Silence onnxruntime's default logger, where a provider that does not load writes."""
    onnxruntime.set_default_logger_severity(_SILENT)
    try:
        yield
    finally:
        onnxruntime.set_default_logger_severity(2)  # its default, "warning"

"""onnxruntime: sessions that run a network on the CPU or on GPUs, and nowhere else."""

import contextlib
import io
import queue
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from colorize_cli.color.lab import Floats
from colorize_cli.core.errors import DeviceError, ModelError, one_line
from colorize_cli.core.settings import available_cores
from colorize_cli.inference import cuda

if TYPE_CHECKING:
    import onnxruntime

# What onnxruntime and CUDA say of it.
_OUT_OF_MEMORY = ("out of memory", "out_of_memory", "failed to allocate", "alloc_failed")
_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
# Below onnxruntime's "fatal" nothing is left to print: what fails comes as an exception.
_SILENT = 4


class Sessions:
    """One session for each GPU, or one for the CPU as often as it is to run at the same time.

    Attributes:
        count: How many run at the same time.
        most: Most pictures that fit their memory; None while all did.
        shares_memory: Whether those that run at the same time have the same memory.
    """

    def __init__(self, sessions: "Sequence[onnxruntime.InferenceSession]") -> None:
        self.count = len(sessions)
        self.most: int | None = None
        self.shares_memory = self.count > len(set(map(id, sessions)))
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._alone = threading.Lock()
        for session in sessions:
            self._idle.put(session)

    def run(self, outputs: list[str], feed: dict[str, Floats], *, alone: bool = False) -> list[Any]:
        """Runs one that is idle, as soon as one is; `alone`, as soon as all are, while no other runs."""
        with self._alone if alone else contextlib.nullcontext():
            taken = [self._idle.get() for _ in range(self.count if alone else 1)]
        try:
            return list(taken[0].run(outputs, feed))
        finally:
            for session in taken:
                self._idle.put(session)


def means_out_of_memory(error: Exception) -> bool:
    """Whether what a session raised says that memory did not suffice."""
    return any(sign in str(error).lower() for sign in _OUT_OF_MEMORY)


def on_cpu(data: bytes, threads: int | None, parallel: int = 1) -> "list[onnxruntime.InferenceSession]":
    """A session on the CPU, as often as it is to run at the same time.

    Args:
        data: An ONNX file.
        threads: Which its runs share; None for as many as there are cores.
        parallel: How many runs these are.

    Raises:
        ModelError: It is no such file.
    """
    import onnxruntime

    options = _options()
    options.intra_op_num_threads = max(1, (threads or available_cores()) // parallel)
    # Threads that wait for work by spinning would take the cores from the codecs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(data, options, providers=[_CPU], enable_fallback=0)
    except Exception as error:
        raise ModelError(f"not an ONNX file that can be loaded: {one_line(error)}") from error
    session.disable_fallback()
    return [session] * parallel


def on_gpus(data: bytes, gpus: list[int]) -> "list[onnxruntime.InferenceSession]":
    """A session for CUDA on each of the GPUs.

    Raises:
        ModelError: It is no ONNX file.
        DeviceError: CUDA does not work, or some part of the network would run elsewhere.
    """
    import onnxruntime

    if _CUDA not in onnxruntime.get_available_providers():
        raise DeviceError("this onnxruntime was built without CUDA; onnxruntime-gpu has it")
    if not cuda.is_installed():
        raise DeviceError("no NVIDIA driver is installed here")
    # It reports on stdout; the session below finds out whether it helped.
    with contextlib.redirect_stdout(io.StringIO()) as said:
        onnxruntime.preload_dlls()
    options = _options()
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
            on_cpu(data, threads=1)  # a file that is no model at all is another failure
            hint = said.getvalue().strip().partition("\n")[0]
            why = f"{one_line(error)} ({hint})" if hint else one_line(error)
            raise DeviceError(f"CUDA cannot run the whole network: {why}") from error
    if any(session.get_providers()[0] != _CUDA for session in sessions):
        raise DeviceError(f"CUDA {onnxruntime.cuda_version} or cuDNN did not load: {said.getvalue().strip()}")
    for session in sessions:
        session.disable_fallback()
    return sessions


def _options() -> "onnxruntime.SessionOptions":
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _SILENT
    return options


@contextlib.contextmanager
def _silence(onnxruntime: Any) -> Any:
    """No lines of onnxruntime's default logger meanwhile: a provider that does not load writes there."""
    onnxruntime.set_default_logger_severity(_SILENT)
    try:
        yield
    finally:
        onnxruntime.set_default_logger_severity(2)  # its default, "warning"

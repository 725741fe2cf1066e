"""One ONNX file, loaded: what it says of itself, and lightness -> ab."""

import contextlib
import importlib.resources
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from colorize_cli import contracts, driver
from colorize_cli.color import Floats
from colorize_cli.contracts import Adapter, Card, Signature, Tensor
from colorize_cli.errors import DeviceError, ModelError, UsageError, one_line

if TYPE_CHECKING:
    import onnxruntime

BUNDLED = "models/default.onnx"
_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
# Below onnxruntime's "fatal" nothing is left to print: what fails comes as an exception.
_SILENT = 4


@dataclass(frozen=True)
class Model:
    """A loaded network. `predict` may be called from several threads.

    Attributes:
        card: What the file says of itself.
        device: Where it runs, "cuda" or "cpu".
        reason: Why it runs there, in words.
    """

    card: Card
    device: str
    reason: str
    _adapter: Adapter
    _session: "onnxruntime.InferenceSession"

    def predict(self, lightness: Floats) -> Floats:
        """The chroma of a batch.

        Args:
            lightness: float32 (N, 1, H, W), L* in [0, 100], H and W multiples of `card.multiple_of`.

        Returns:
            float32 (N, 2, h, w): CIE a* and b*, h and w a fixed fraction of H and W.

        Raises:
            ModelError: The network's answer has another shape or is not finite.
            DeviceError: The network could not be run, for want of memory for instance.
        """
        _, _, height, width = lightness.shape
        multiple = self.card.multiple_of
        if height % multiple or width % multiple:
            raise ValueError(f"{width} x {height} are not multiples of {multiple}")
        try:
            outputs = self._session.run(list(self._adapter.outputs), self._adapter.feed(lightness))
        except Exception as error:
            raise DeviceError(f"the network failed on {self.device}: {one_line(error)}") from error
        ab = np.asarray(self._adapter.chroma(outputs), np.float32)
        if ab.ndim != 4 or ab.shape[:2] != (len(lightness), 2):
            raise ModelError(f"{self.card.name} answered {ab.shape} to {lightness.shape}")
        if not np.isfinite(ab).all():
            raise ModelError(f"{self.card.name} answered with values that are not finite")
        return ab


def load(path: Path | None = None, device: str = "auto", threads: int | None = None) -> Model:
    """Loads an ONNX file.

    Args:
        path: The file; None for the model that comes with this package.
        device: "cuda": the whole network runs on the GPU or this fails. "cpu". "auto": the first that works.
        threads: Threads of the CPU within one call of `predict`; None for as many as there are cores.

    Raises:
        ModelError: There is no such file, or it is not of a kind known here.
        DeviceError: `device` is "cuda" and some part of the network would run elsewhere.
        UsageError: `device` is none of the three.
    """
    data = read(path)
    if device == "cpu":
        return _load_cpu(data, "asked for", threads)
    if device == "cuda":
        return _load_cuda(data)
    if device != "auto":
        raise UsageError(f"no such device: {device} (auto, cuda or cpu)")
    try:
        return _load_cuda(data)
    except DeviceError as error:
        return _load_cpu(data, str(error), threads)


def read(path: Path | None = None) -> bytes:
    """The content of an ONNX file; None for the model that comes with this package.

    Raises:
        ModelError: It cannot be read.
    """
    if path is not None:
        try:
            return path.read_bytes()
        except OSError as error:
            raise ModelError(f"cannot read the model {path}: {error.strerror}") from error
    try:
        return importlib.resources.files("colorize_cli").joinpath(BUNDLED).read_bytes()
    except FileNotFoundError as error:
        raise ModelError(
            f"this installation lacks its model, colorize_cli/{BUNDLED}; install it anew or pass --model"
        ) from error


def _load_cpu(data: bytes, reason: str, threads: int | None) -> Model:
    import onnxruntime

    options = _options()
    options.intra_op_num_threads = threads or 0
    # Threads that wait for work by spinning would take the cores from the codecs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(data, options, providers=[_CPU], enable_fallback=0)
    except Exception as error:
        raise ModelError(f"not an ONNX file that can be loaded: {one_line(error)}") from error
    return _model(session, "cpu", reason)


def _load_cuda(data: bytes) -> Model:
    """Loads for CUDA; the session refuses to exist if any part of the network were to run elsewhere."""
    import onnxruntime

    if _CUDA not in onnxruntime.get_available_providers():
        raise DeviceError("this onnxruntime was built without CUDA; onnxruntime-gpu has it")
    if not driver.is_installed():
        raise DeviceError("no NVIDIA driver is installed here")
    # It reports on stdout; the session below finds out whether it helped.
    with contextlib.redirect_stdout(io.StringIO()) as said:
        onnxruntime.preload_dlls()
    options = _options()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    providers = [(_CUDA, {"cudnn_conv_algo_search": "HEURISTIC"})]
    with _silence(onnxruntime):
        try:
            session = onnxruntime.InferenceSession(data, options, providers=providers, enable_fallback=0)
        except Exception as error:
            _load_cpu(data, "", threads=1)  # a file that is no model at all is another failure
            hint = said.getvalue().strip().partition("\n")[0]
            why = f"{one_line(error)} ({hint})" if hint else one_line(error)
            raise DeviceError(f"CUDA cannot run the whole network: {why}") from error
    if session.get_providers()[0] != _CUDA:
        raise DeviceError(f"CUDA {onnxruntime.cuda_version} or cuDNN did not load: {said.getvalue().strip()}")
    return _model(session, "cuda", "it can run the whole network")


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


def _model(session: "onnxruntime.InferenceSession", device: str, reason: str) -> Model:
    session.disable_fallback()
    signature = Signature(
        inputs=tuple(Tensor(i.name, i.type, tuple(i.shape)) for i in session.get_inputs()),
        outputs=tuple(Tensor(o.name, o.type, tuple(o.shape)) for o in session.get_outputs()),
        metadata=dict(session.get_modelmeta().custom_metadata_map),
    )
    adapter = contracts.recognise(signature)
    return Model(adapter.card, device, reason, adapter, session)

"""One ONNX file, loaded: what it says of itself, and lightness -> ab."""

import contextlib
import hashlib
import importlib.resources
import io
import queue
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from colorize_cli import contracts, driver
from colorize_cli.color import Floats
from colorize_cli.contracts import Adapter, Card, Signature, Tensor
from colorize_cli.errors import DeviceError, DeviceMemoryError, ModelError, UsageError, one_line
from colorize_cli.jobs import PRECISIONS

if TYPE_CHECKING:
    import onnxruntime

BUNDLED = "models/default.onnx"
# What onnxruntime and CUDA say of it.
_OUT_OF_MEMORY = ("out of memory", "out_of_memory", "failed to allocate", "alloc_failed")
VARIANT = "-int8"
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
    _sessions: "_Sessions"

    @property
    def precision(self) -> str:
        """What it computes in, "fp32", "fp16" or "int8"."""
        return self.card.precision

    @property
    def parallel(self) -> int:
        """How many calls of `predict` run at the same time, on as many GPUs."""
        return self._sessions.count

    @property
    def most(self) -> int | None:
        """Most pictures that are put into the network at once since memory ran out; None if it did not."""
        return self._sessions.most

    def predict(self, lightness: Floats) -> Floats:
        """The chroma of a batch.

        Args:
            lightness: float32 (N, 1, H, W), L* in [0, 100], H and W multiples of `card.multiple_of`.

        Returns:
            float32 (N, 2, h, w): CIE a* and b*, h and w a fixed fraction of H and W.

        Raises:
            ModelError: The network's answer has another shape or is not finite.
            DeviceMemoryError: Memory does not suffice for a single picture; of several fewer are tried.
            DeviceError: The network could not be run.
        """
        _, _, height, width = lightness.shape
        multiple = self.card.multiple_of
        if height % multiple or width % multiple:
            raise ValueError(f"{width} x {height} are not multiples of {multiple}")
        answers: list[Floats] = []
        done = 0
        while done < len(lightness):
            most = self._adapter.batch or self._sessions.most or len(lightness)
            part = lightness[done : done + most]
            try:
                answers.append(self._answer(part))
            except DeviceMemoryError:
                if len(part) == 1 or self._adapter.batch is not None:
                    raise
                self._sessions.most = len(part) // 2
            else:
                done += len(part)
        return answers[0] if len(answers) == 1 else np.concatenate(answers)

    def _answer(self, lightness: Floats) -> Floats:
        """As `predict`, in one call of the network."""
        count = len(lightness)
        if self._adapter.batch is not None:  # it takes no fewer
            lightness = np.resize(lightness, (self._adapter.batch, *lightness.shape[1:]))
        try:
            outputs = self._sessions.run(list(self._adapter.outputs), self._adapter.feed(lightness))
        except Exception as error:
            why = f"the network failed on {self.device}: {one_line(error)}"
            if any(sign in str(error).lower() for sign in _OUT_OF_MEMORY):
                raise DeviceMemoryError(why) from error
            raise DeviceError(why) from error
        ab = np.asarray(self._adapter.chroma(outputs), np.float32)
        if ab.ndim != 4 or ab.shape[:2] != (len(lightness), 2):
            raise ModelError(f"{self.card.name} answered {ab.shape} to {lightness.shape}")
        if not np.isfinite(ab).all():
            raise ModelError(f"{self.card.name} answered with values that are not finite")
        return ab[:count]


class _Sessions:
    """One session for each GPU, or one for the CPU.

    Attributes:
        count: How many.
        most: Most pictures that fit their memory; None while all did.
    """

    def __init__(self, sessions: "Sequence[onnxruntime.InferenceSession]") -> None:
        self.count = len(sessions)
        self.most: int | None = None
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for session in sessions:
            self._idle.put(session)

    def run(self, outputs: list[str], feed: dict[str, Floats]) -> list[Any]:
        """Runs one that is idle, as soon as one is."""
        session = self._idle.get()
        try:
            return list(session.run(outputs, feed))
        finally:
            self._idle.put(session)


def load(
    path: Path | None = None,
    device: str = "auto",
    threads: int | None = None,
    precision: str = "auto",
    kind: str | None = None,
) -> Model:
    """Loads an ONNX file.

    Args:
        path: The file; None for the model that comes with this package.
        device: "cuda": the whole network runs on the first GPU or this fails; "cuda:1" on that one,
            "cuda:0,1" on both, batch by batch, and "cuda:all" on all. "cpu". "auto": cuda or, if that does
            not work, cpu.
        threads: Threads of the CPU within one call of `predict`; None for as many as there are cores.
        precision: "fp32": the file itself. "int8": on the CPU, a variant of it that lies beside it as
            NAME-int8.onnx, with integers of 8 bits. "auto": that on the CPU, if there is one.
        kind: The contract that the file is of (see `contracts`); None to find out.

    Raises:
        ModelError: There is no such file, or it is not of a kind known here.
        DeviceError: `device` is "cuda" and some part of the network would run elsewhere, or integers are
            asked for there.
        UsageError: `device` or `precision` is none of those.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"no such precision: {precision} ({', '.join(PRECISIONS)})")
    gpus = gpus_of(device)
    data = read(path)
    reason = "asked for"
    if gpus is not None and precision == "int8":
        raise DeviceError("integers of 8 bits are for the CPU")
    if device == "auto" and precision == "int8":
        reason = "integers of 8 bits are for it"
    elif device != "cpu":
        try:
            return _load_cuda(data, gpus or [0], kind)
        except DeviceError as error:
            if device != "auto":
                raise
            reason = str(error)
    if precision != "fp32":
        try:
            return _load_variant(path, data, reason, threads)
        except _NoVariantError as error:
            if precision == "int8":
                raise ModelError(str(error)) from error
    return _load_cpu(data, reason, threads, kind)


def gpus_of(device: str) -> list[int] | None:
    """The numbers of the GPUs that a device names; None where it names none.

    Raises:
        UsageError: There is no such device.
    """
    name, _, numbers = device.partition(":")
    if name == "cuda" and numbers == "all":
        found = driver.ask()
        return list(range(len(found.gpus))) or [0] if found is not None else [0]
    if name == "cuda" and all(number.isdecimal() for number in numbers.split(",")):
        return sorted({int(number) for number in numbers.split(",")})
    if device == "cuda":
        return [0]
    if device not in ("auto", "cpu"):
        raise UsageError(f"no such device: {device} (auto, cpu, cuda, cuda:0, cuda:0,1 or cuda:all)")
    return None


class _NoVariantError(Exception):
    """There is no such variant of a model."""


def _load_variant(path: Path | None, data: bytes, reason: str, threads: int | None) -> Model:
    """The variant of a file with integers, which has the hash of the file in its metadata."""
    file = Path(str(importlib.resources.files("colorize_cli"))) / BUNDLED if path is None else path
    variant = file.with_stem(file.stem + VARIANT)
    if not variant.is_file():
        raise _NoVariantError(f"there is no variant with integers of 8 bits beside it ({variant.name})")
    loaded = _load_cpu(read(variant), reason, threads)
    if loaded.card.variant_of != hashlib.sha256(data).hexdigest():
        raise _NoVariantError(f"{variant} was made of another file")
    return loaded


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


def _load_cpu(data: bytes, reason: str, threads: int | None, kind: str | None = None) -> Model:
    import onnxruntime

    options = _options()
    options.intra_op_num_threads = threads or 0
    # Threads that wait for work by spinning would take the cores from the codecs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(data, options, providers=[_CPU], enable_fallback=0)
    except Exception as error:
        raise ModelError(f"not an ONNX file that can be loaded: {one_line(error)}") from error
    return _model([session], "cpu", reason, kind)


def _load_cuda(data: bytes, gpus: list[int], kind: str | None) -> Model:
    """Loads for CUDA; a session refuses to exist if any part of the network were to run elsewhere."""
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
            _load_cpu(data, "", threads=1)  # a file that is no model at all is another failure
            hint = said.getvalue().strip().partition("\n")[0]
            why = f"{one_line(error)} ({hint})" if hint else one_line(error)
            raise DeviceError(f"CUDA cannot run the whole network: {why}") from error
    if any(session.get_providers()[0] != _CUDA for session in sessions):
        raise DeviceError(f"CUDA {onnxruntime.cuda_version} or cuDNN did not load: {said.getvalue().strip()}")
    return _model(sessions, "cuda", "it can run the whole network", kind)


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


def _model(
    sessions: "Sequence[onnxruntime.InferenceSession]", device: str, reason: str, kind: str | None
) -> Model:
    for session in sessions:
        session.disable_fallback()
    first = sessions[0]
    signature = Signature(
        inputs=tuple(Tensor(i.name, i.type, tuple(i.shape)) for i in first.get_inputs()),
        outputs=tuple(Tensor(o.name, o.type, tuple(o.shape)) for o in first.get_outputs()),
        metadata=dict(first.get_modelmeta().custom_metadata_map),
    )
    adapter = contracts.recognise(signature, kind)
    return Model(adapter.card, device, reason, adapter, _Sessions(sessions))

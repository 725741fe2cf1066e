"""Load an ONNX file and run it: lightness to ab."""

import contextlib
import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from colorize_cli.color.lab import Floats
from colorize_cli.core.errors import DeviceError, DeviceMemoryError, ModelError, UsageError, one_line
from colorize_cli.core.settings import PRECISIONS
from colorize_cli.inference import DEFAULT, adapters, cuda
from colorize_cli.inference import sessions as onnx_sessions
from colorize_cli.inference.adapters import Adapter, ModelInfo, Signature, Tensor
from colorize_cli.inference.sessions import Sessions
from colorize_cli.storage import filesystem

if TYPE_CHECKING:
    import onnxruntime

# File name suffixes of variants by precision, and the devices that they run on.
VARIANTS = {"int8": "-int8", "fp16": "-fp16"}
_DEVICE_OF = {"int8": "the CPU", "fp16": "GPUs"}
# Limit on the mean difference of a* and b* between fp16 on a GPU and fp32, in CIE units.
_MOST_DIFFERENCE = 0.5
_MOST_BYTES = 2 << 30  # of a file; Protocol Buffers allow no more


@dataclass(eq=False)
class Model:
    """Loaded network. `predict` is thread-safe, and remembers the largest batch that fits in memory.

    Attributes:
        info: Metadata of the file.
        device: Device it runs on, "cuda" or "cpu".
        reason: Reason for the device, in words.
        batch_size: Default number of pictures per call.
    """

    info: ModelInfo
    device: str
    reason: str
    _adapter: Adapter
    _sessions: Sessions
    batch_size: int = 8

    @property
    def precision(self) -> str:
        """Precision of the computation: "fp32", "fp16" or "int8"."""
        return self.info.precision

    @property
    def parallel(self) -> int:
        """Number of concurrent calls of `predict`, each on a GPU or with a share of the CPU's threads."""
        return self._sessions.count

    @property
    def batch_limit(self) -> int | None:
        """Limit on the batch since memory ran out; None if it never did."""
        return self._sessions.batch_limit

    def predict(self, lightness: Floats) -> Floats:
        """Predict the chroma of a batch. Larger batches than fit the network or memory are split.

        Args:
            lightness: float32 (N, 1, H, W), L* in [0, 100], H and W multiples of `info.multiple_of`.

        Returns:
            float32 (N, 2, h, w): CIE a* and b*, h and w a fixed fraction of H and W.

        Raises:
            ModelError: The network's output has a wrong shape or is not finite.
            DeviceMemoryError: Memory does not suffice for a single picture. Batches are halved before that.
            DeviceError: The network could not be run.
            ValueError: H or W is not a multiple of `info.multiple_of`.
        """
        _, _, height, width = lightness.shape
        multiple = self.info.multiple_of
        if height % multiple or width % multiple:
            raise ValueError(f"{width} x {height} are not multiples of {multiple}")
        outputs: list[Floats] = []
        done = 0
        while done < len(lightness):
            limit = self._adapter.batch or self._sessions.batch_limit or len(lightness)
            batch = lightness[done : done + limit]
            try:
                outputs.append(self._predict_once(batch))
            except DeviceMemoryError:
                if len(batch) > 1 and self._adapter.batch is None:
                    self._sessions.batch_limit = len(batch) // 2
                    continue
                if not self._sessions.shares_memory:
                    raise
                outputs.append(self._predict_once(batch, alone=True))
            done += len(batch)
        return outputs[0] if len(outputs) == 1 else np.concatenate(outputs)

    def _predict_once(self, lightness: Floats, *, alone: bool = False) -> Floats:
        """Like `predict`, but in one call of the network; `alone` waits until no other call runs."""
        count = len(lightness)
        if self._adapter.batch is not None:  # a fixed batch: fill it up
            lightness = np.resize(lightness, (self._adapter.batch, *lightness.shape[1:]))
        try:
            feed = self._adapter.feed(lightness)
            outputs = self._sessions.run(list(self._adapter.outputs), feed, alone=alone)
        except Exception as error:
            why = f"the network failed on {self.device}: {one_line(error)}"
            if onnx_sessions.means_out_of_memory(error):
                raise DeviceMemoryError(why) from error
            raise DeviceError(why) from error
        ab = np.asarray(self._adapter.chroma(outputs), np.float32)
        if ab.ndim != 4 or ab.shape[:2] != (len(lightness), 2):
            raise ModelError(f"{self.info.name} returned shape {ab.shape} for input {lightness.shape}")
        if not np.isfinite(ab).all():
            raise ModelError(f"{self.info.name} returned values that are not finite")
        return ab[:count]


def load(
    path: Path | None = None,
    device: str = "auto",
    threads: int | None = None,
    precision: str = "auto",
    kind: str | None = None,
    parallel: int = 1,
) -> Model:
    """Load an ONNX file.

    Args:
        path: The file; None for the bundled model.
        device: "cpu"; "cuda" for the first GPU, "cuda:1" for the GPU of that number, "cuda:0,1" for both
            (each batch runs on one), "cuda:all" for all; "auto" for cuda or, if that fails, cpu. With cuda
            the whole network must run on the GPU.
        threads: CPU threads for calls of `predict`; None for the number of cores.
        precision: "fp32" for the file itself. "int8" for its 8-bit integer variant NAME-int8.onnx in the same
            folder, on the CPU. "fp16" for its 16-bit float variant NAME-fp16.onnx, on GPUs. "auto" for int8
            on the CPU if there is such a variant, and fp32 on GPUs.
        kind: Kind of the file (see `adapters`); None to detect it.
        parallel: Number of calls that run concurrently on the CPU and share its threads. 1 minimizes the time
            of a call; one thread per call maximizes throughput.

    Raises:
        ModelError: There is no such file, or its kind is not supported.
        DeviceError: `device` is "cuda" and a part of the network would run elsewhere, or the device does not
            support the precision, or fp16 differs too much from fp32 on this GPU.
        UsageError: `device` or `precision` has no such value.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"no such precision: {precision} ({', '.join(PRECISIONS)})")
    gpus = gpus_of(device)
    if (gpus is not None and precision == "int8") or (device == "cpu" and precision == "fp16"):
        raise DeviceError(f"precision {precision} runs only on {_DEVICE_OF[precision]}")
    _fingerprint(path)  # reports a missing file before any device error
    reason = "requested"
    if device == "auto" and precision == "int8":
        reason = "int8 runs only there"
    elif device != "cpu":
        try:
            return _load_cuda(path, gpus or [0], precision, kind)
        except DeviceError as error:
            if device != "auto" or precision == "fp16":
                raise
            reason = str(error)
    return _load_cpu(path, reason, threads, parallel, precision, kind)


def gpus_of(device: str) -> list[int] | None:
    """Return the GPU numbers in a device name, or None for "auto" and "cpu".

    Raises:
        UsageError: There is no such device.
    """
    name, _, numbers = device.partition(":")
    if name == "cuda" and numbers == "all":
        driver = cuda.ask()
        return list(range(len(driver.gpus))) or [0] if driver is not None else [0]
    if name == "cuda" and all(number.isdecimal() for number in numbers.split(",")):
        return sorted({int(number) for number in numbers.split(",")})
    if device == "cuda":
        return [0]
    if device not in ("auto", "cpu"):
        raise UsageError(f"no such device: {device} (auto, cpu, cuda, cuda:0, cuda:0,1 or cuda:all)")
    return None


def read(path: Path | None = None) -> bytes:
    """Return the content of an ONNX file; `path` None is the bundled model.

    Raises:
        ModelError: The file cannot be read, is not a regular file, or is too large.
    """
    with _explained(path), filesystem.open_regular(_file(path)) as file:
        if os.fstat(file.fileno()).st_size > _MOST_BYTES:
            raise ModelError("it is larger than 2 GiB, the limit of the format")
        return file.read(_MOST_BYTES)


def digest(path: Path | None = None) -> bytes:
    """Return the SHA-256 of an ONNX file's content; `path` None is the bundled model.

    Raises:
        ModelError: The file cannot be read.
    """
    return _digest_of_version(path, _fingerprint(path))


@functools.cache
def _digest_of_version(path: Path | None, fingerprint: tuple[int, int]) -> bytes:  # noqa: ARG001
    """Like `digest`, computed once for each fingerprint."""
    return hashlib.sha256(read(path)).digest()


def _fingerprint(path: Path | None) -> tuple[int, int]:
    """Return modification time in nanoseconds and size in bytes of a file."""
    with _explained(path):
        status = _file(path).stat()
        return status.st_mtime_ns, status.st_size


@contextlib.contextmanager
def _explained(path: Path | None) -> Iterator[None]:
    """Turn an OSError about a file into a ModelError, and name the file in a ModelError about its content."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"cannot use the model {_file(path)}: {error}") from error
    except OSError as error:
        why = f"cannot read the model {_file(path)}: {error.strerror}"
        if path is None and isinstance(error, FileNotFoundError):
            name = f"colorize_cli/models/{DEFAULT.name}"
            why = f"this installation lacks its model, {name}; reinstall it or pass --model"
        raise ModelError(why) from error


def _file(path: Path | None) -> Path:
    return DEFAULT if path is None else path


def _load_cpu(
    path: Path | None, reason: str, threads: int | None, parallel: int, precision: str, kind: str | None
) -> Model:
    def made(file: Path | None, kind: str | None) -> Model:
        data = read(file)
        with _explained(file):
            session = onnx_sessions.on_cpu(data, threads, parallel)
            return _model([session], "cpu", reason, kind, parallel)

    if precision != "fp32":
        variant = _variant(path, "int8", lambda file: made(file, None))
        if isinstance(variant, Model):
            return variant
        if precision == "int8":
            raise ModelError(variant)
    return made(path, kind)


def _load_cuda(path: Path | None, gpus: list[int], precision: str, kind: str | None) -> Model:
    def made(file: Path | None, kind: str | None) -> Model:
        data = read(file)
        with _explained(file):
            return _model(onnx_sessions.on_gpus(data, gpus), "cuda", "it runs the whole network", kind)

    if precision != "fp16":
        return made(path, kind)
    half = _variant(path, "fp16", lambda file: made(file, None))
    if not isinstance(half, Model):
        raise ModelError(half)
    difference = _difference(half, _load_cpu(path, "", None, 1, "fp32", kind))
    if difference > _MOST_DIFFERENCE:
        raise DeviceError(
            f"fp16 differs from fp32 by {difference:.2f} in a* and b* on average; use --precision fp32"
        )
    return half


def _variant(path: Path | None, precision: str, make: Callable[[Path], Model]) -> Model | str:
    """Load the variant of a model in another precision. Returns the reason, in words, if there is none."""
    file = _file(path)
    variant = file.with_stem(file.stem + VARIANTS[precision])
    if not variant.is_file():
        return f"there is no {precision} variant of the model beside it ({variant.name})"
    made = make(variant)
    if made.info.variant_of != digest(path).hex():
        return f"{variant} was made from another file"
    return made


def _difference(one: Model, other: Model) -> float:
    """Return the mean difference of a* and b* of two models on a picture with structure at all scales."""
    side = -(-one.info.working_size // one.info.multiple_of) * one.info.multiple_of
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    waves = sum(np.sin(2 * np.pi * n * (x + n * y)) / n for n in (1, 2, 4, 8, 16))
    lightness = np.clip(50 + 25 * waves, 0, 100).astype(np.float32)[None, None]
    return float(np.abs(one.predict(lightness) - other.predict(lightness)).mean())


def _model(
    sessions: "Sequence[onnxruntime.InferenceSession]",
    device: str,
    reason: str,
    kind: str | None,
    parallel: int = 1,
) -> Model:
    first = sessions[0]
    signature = Signature(
        inputs=tuple(Tensor(i.name, i.type, tuple(i.shape)) for i in first.get_inputs()),
        outputs=tuple(Tensor(o.name, o.type, tuple(o.shape)) for o in first.get_outputs()),
        metadata=dict(first.get_modelmeta().custom_metadata_map),
    )
    adapter = adapters.recognize(signature, kind)
    made = Model(adapter.info, device, reason, adapter, Sessions(sessions, parallel))
    return replace(made, batch_size=adapter.batch or 1) if parallel > 1 else made

"""One ONNX file, loaded: what it says of itself, and lightness -> ab."""

import contextlib
import functools
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from colorize_cli.color.lab import Floats
from colorize_cli.core.errors import DeviceError, DeviceMemoryError, ModelError, UsageError, one_line
from colorize_cli.core.settings import PRECISIONS
from colorize_cli.inference import adapters, cuda
from colorize_cli.inference import sessions as onnx_sessions
from colorize_cli.inference.adapters import Adapter, ModelInfo, Signature, Tensor
from colorize_cli.inference.sessions import Sessions

if TYPE_CHECKING:
    import onnxruntime

BUNDLED = "models/default.onnx"
# What is added to a file's name for its variant in a precision, and what these are for.
VARIANTS = {"int8": "-int8", "fp16": "-fp16"}
_DEVICE_OF = {"int8": "the CPU", "fp16": "GPUs"}
# By how much a* and b* may differ on average, in CIE units, from those of fp32 where a GPU computes in fp16.
_MOST_DIFFERENCE = 0.5


@dataclass(frozen=True)
class Model:
    """A loaded network. `predict` may be called from several threads.

    Attributes:
        info: What the file says of itself.
        device: Where it runs, "cuda" or "cpu".
        reason: Why it runs there, in words.
        batch_size: Of how many pictures a call is to be where nothing else is asked for.
    """

    info: ModelInfo
    device: str
    reason: str
    _adapter: Adapter
    _sessions: Sessions
    batch_size: int = 8

    @property
    def precision(self) -> str:
        """What it computes in, "fp32", "fp16" or "int8"."""
        return self.info.precision

    @property
    def parallel(self) -> int:
        """How many calls of `predict` run at the same time, each on a GPU or with a part of the CPU."""
        return self._sessions.count

    @property
    def most(self) -> int | None:
        """Most pictures that are put into the network at once since memory ran out; None if it did not."""
        return self._sessions.most

    def predict(self, lightness: Floats) -> Floats:
        """The chroma of a batch.

        Args:
            lightness: float32 (N, 1, H, W), L* in [0, 100], H and W multiples of `info.multiple_of`.

        Returns:
            float32 (N, 2, h, w): CIE a* and b*, h and w a fixed fraction of H and W.

        Raises:
            ModelError: The network's answer has another shape or is not finite.
            DeviceMemoryError: Memory does not suffice for a single picture; of several fewer are tried.
            DeviceError: The network could not be run.
        """
        _, _, height, width = lightness.shape
        multiple = self.info.multiple_of
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
                if len(part) > 1 and self._adapter.batch is None:
                    self._sessions.most = len(part) // 2
                    continue
                if not self._sessions.shares_memory:
                    raise
                answers.append(self._answer(part, alone=True))
            done += len(part)
        return answers[0] if len(answers) == 1 else np.concatenate(answers)

    def _answer(self, lightness: Floats, *, alone: bool = False) -> Floats:
        """As `predict`, in one call of the network."""
        count = len(lightness)
        if self._adapter.batch is not None:  # it takes no fewer
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
            raise ModelError(f"{self.info.name} answered {ab.shape} to {lightness.shape}")
        if not np.isfinite(ab).all():
            raise ModelError(f"{self.info.name} answered with values that are not finite")
        return ab[:count]


def load(
    path: Path | None = None,
    device: str = "auto",
    threads: int | None = None,
    precision: str = "auto",
    kind: str | None = None,
    parallel: int = 1,
) -> Model:
    """Loads an ONNX file.

    Args:
        path: The file; None for the model that comes with this package.
        device: "cuda": the whole network runs on the first GPU or this fails; "cuda:1" on that one,
            "cuda:0,1" on both, batch by batch, and "cuda:all" on all. "cpu". "auto": cuda or, if that does
            not work, cpu.
        threads: Threads of the CPU for calls of `predict`; None for as many as there are cores.
        precision: "fp32": the file itself. "int8": on the CPU, a variant of it that lies beside it as
            NAME-int8.onnx, with integers of 8 bits. "fp16": on GPUs, likewise NAME-fp16.onnx, with floats of
            16 bits. "auto": integers on the CPU, if there is such a variant, and fp32 on GPUs.
        kind: The contract that the file is of (see `adapters`); None to find out.
        parallel: How many calls run at the same time on the CPU, and share its threads. A call ends soonest
            with all of them, many calls with one for each.

    Raises:
        ModelError: There is no such file, or it is not of a kind known here.
        DeviceError: `device` is "cuda" and some part of the network would run elsewhere, or the precision is
            not for the device, or on this GPU differs too much from fp32.
        UsageError: `device` or `precision` is none of those.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"no such precision: {precision} ({', '.join(PRECISIONS)})")
    gpus = gpus_of(device)
    if (gpus is not None and precision == "int8") or (device == "cpu" and precision == "fp16"):
        raise DeviceError(f"{precision} is for {_DEVICE_OF[precision]}")
    _fingerprint(path)  # which may fail: whatever else does is not the cause then
    reason = "asked for"
    if device == "auto" and precision == "int8":
        reason = "int8 is for it"
    elif device != "cpu":
        try:
            return _load_cuda(path, gpus or [0], precision, kind)
        except DeviceError as error:
            if device != "auto" or precision == "fp16":
                raise
            reason = str(error)
    return _load_cpu(path, reason, (threads, parallel), precision, kind)


def gpus_of(device: str) -> list[int] | None:
    """The numbers of the GPUs that a device names; None where it names none.

    Raises:
        UsageError: There is no such device.
    """
    name, _, numbers = device.partition(":")
    if name == "cuda" and numbers == "all":
        found = cuda.ask()
        return list(range(len(found.gpus))) or [0] if found is not None else [0]
    if name == "cuda" and all(number.isdecimal() for number in numbers.split(",")):
        return sorted({int(number) for number in numbers.split(",")})
    if device == "cuda":
        return [0]
    if device not in ("auto", "cpu"):
        raise UsageError(f"no such device: {device} (auto, cpu, cuda, cuda:0, cuda:0,1 or cuda:all)")
    return None


def read(path: Path | None = None) -> bytes:
    """The content of an ONNX file; None for the model that comes with this package.

    Raises:
        ModelError: It cannot be read.
    """
    with _explained(path):
        return _file(path).read_bytes()


def digest(path: Path | None = None) -> bytes:
    """The SHA-256 of an ONNX file's content; None for the model that comes with this package.

    Raises:
        ModelError: It cannot be read.
    """
    return _digest(path, _fingerprint(path))


@functools.cache
def _digest(path: Path | None, _: tuple[int, int]) -> bytes:
    return hashlib.sha256(read(path)).digest()


def _fingerprint(path: Path | None) -> tuple[int, int]:
    """When a file was changed, and its size."""
    with _explained(path):
        status = _file(path).stat()
        return status.st_mtime_ns, status.st_size


@contextlib.contextmanager
def _explained(path: Path | None) -> Iterator[None]:
    """Why a file cannot be read, as a ModelError."""
    try:
        yield
    except OSError as error:
        why = f"cannot read the model {_file(path)}: {error.strerror}"
        if path is None and isinstance(error, FileNotFoundError):
            why = (
                f"this installation lacks its model, colorize_cli/{BUNDLED}; install it anew or pass --model"
            )
        raise ModelError(why) from error


def _file(path: Path | None) -> Path:
    return Path(__file__).parents[1] / BUNDLED if path is None else path


def _load_cpu(
    path: Path | None, reason: str, shared: tuple[int | None, int], precision: str, kind: str | None
) -> Model:
    if precision != "fp32":
        try:
            variant = _variant_file(path, "int8")
            made = _model(onnx_sessions.on_cpu(read(variant), *shared), "cpu", reason, None)
            return _checked(made, variant, path)
        except _NoVariantError as error:
            if precision == "int8":
                raise ModelError(str(error)) from error
    return _model(onnx_sessions.on_cpu(read(path), *shared), "cpu", reason, kind)


def _load_cuda(path: Path | None, gpus: list[int], precision: str, kind: str | None) -> Model:
    reason = "it can run the whole network"
    data = read(path)
    if precision != "fp16":
        return _model(onnx_sessions.on_gpus(data, gpus), "cuda", reason, kind)
    try:
        variant = _variant_file(path, "fp16")
        half = _checked(
            _model(onnx_sessions.on_gpus(read(variant), gpus), "cuda", reason, None), variant, path
        )
    except _NoVariantError as error:
        raise ModelError(str(error)) from error
    difference = _difference(half, _model(onnx_sessions.on_cpu(data, None), "cpu", "", kind))
    if difference > _MOST_DIFFERENCE:
        raise DeviceError(f"fp16 differs from fp32 by {difference:.2f} in a* and b* here, on average")
    return half


class _NoVariantError(Exception):
    """There is no such variant of a model."""


def _variant_file(path: Path | None, precision: str) -> Path:
    file = _file(path)
    variant = file.with_stem(file.stem + VARIANTS[precision])
    if not variant.is_file():
        raise _NoVariantError(f"there is no {precision} variant of the model beside it ({variant.name})")
    return variant


def _checked(made: Model, variant: Path, path: Path | None) -> Model:
    """A variant, if it is of the file with that content, whose hash is in its metadata."""
    if made.info.variant_of != digest(path).hex():
        raise _NoVariantError(f"{variant} was made of another file")
    return made


def _difference(one: Model, other: Model) -> float:
    """By how much a* and b* of two models differ on average, on a picture with structure at all scales."""
    side = -(-one.info.working_size // one.info.multiple_of) * one.info.multiple_of
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    waves = sum(np.sin(2 * np.pi * n * (x + n * y)) / n for n in (1, 2, 4, 8, 16))
    lightness = np.clip(50 + 25 * waves, 0, 100).astype(np.float32)[None, None]
    return float(np.abs(one.predict(lightness) - other.predict(lightness)).mean())


def _model(
    sessions: "Sequence[onnxruntime.InferenceSession]", device: str, reason: str, kind: str | None
) -> Model:
    first = sessions[0]
    signature = Signature(
        inputs=tuple(Tensor(i.name, i.type, tuple(i.shape)) for i in first.get_inputs()),
        outputs=tuple(Tensor(o.name, o.type, tuple(o.shape)) for o in first.get_outputs()),
        metadata=dict(first.get_modelmeta().custom_metadata_map),
    )
    adapter = adapters.recognize(signature, kind)
    made = Model(adapter.info, device, reason, adapter, Sessions(sessions))
    return replace(made, batch_size=adapter.batch or 1) if made._sessions.shares_memory else made

"""An exported model to a variant of it in another precision: integers of 8 bits, or floats of 16.

Integers are for the CPU, by onnxruntime's quantisation. Static quantisation with operators in pairs of
QuantizeLinear and DequantizeLinear (QDQ), as in Jacob et al. 2018, "Quantization and Training of Neural
Networks for Efficient Integer-Arithmetic-Only Inference": weights by channel, activations by the ranges that
calibration pictures have. Weights have 7 bits, so that no processor's sums overflow. The first convolution
and the last stay as they are: there rounding shows most and saves least.

Floats of 16 bits are for GPUs: all operators are converted, and input and output stay fp32.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto, helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16

from trainer.export import ExportError, write_model

MOST_DIFFERENCE = 1.0
"""Mean difference of a* and b*, in CIE units, that another precision may make."""
_FIRST, _LAST = 1, 3
"""Convolutions that stay as they are."""
_CHECKED = 4
"""Every so many-th copy is not calibrated on, and the difference is measured on those."""

Copies = Sequence[NDArray[np.float32]]


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Gives the calibration what the network sees."""

    def __init__(self, copies: Copies) -> None:
        self._copies = iter(copies)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """The next one, or None."""
        copy = next(self._copies, None)
        return None if copy is None else {"lightness": copy[None, None]}


def quantise(source: Path, copies: Copies, out: Path, precision: str = "int8") -> float:
    """Write the model in `source` to `out` in another precision.

    Args:
        source: an ONNX file that `export` wrote.
        copies: lightness of a hundred pictures or more as the network sees them, (h, w), L* in [0, 100].
        out: appears complete or not at all.
        precision: one of `PRECISIONS`.

    Returns:
        The mean difference of a* and b* that it makes.

    Raises:
        ExportError: if that is more than `MOST_DIFFERENCE`, or there are too few pictures.
    """
    if len(copies) < 2 * _CHECKED:
        raise ExportError(f"{len(copies)} pictures are too few to calibrate on")
    content = source.read_bytes()
    calibrating = [copy for number, copy in enumerate(copies) if number % _CHECKED]
    model = PRECISIONS[precision](source, calibrating)
    said = {entry.key: entry.value for entry in onnx.load_from_string(content).metadata_props}
    of = hashlib.sha256(content).hexdigest()
    helper.set_model_props(model, said | {"colorize.precision": precision, "colorize.variant_of": of})
    difference = _difference(content, model.SerializeToString(), copies[::_CHECKED])
    if not difference <= MOST_DIFFERENCE:
        raise ExportError(f"{out}: a* and b* differ by {difference:.3g} on average (limit {MOST_DIFFERENCE})")
    write_model(model, out)
    return difference


def _integers(source: Path, copies: Copies) -> ModelProto:
    with TemporaryDirectory() as place, _quiet():
        prepared, quantised = Path(place, "prepared.onnx"), Path(place, "quantised.onnx")
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        convolutions = [node.name for node in onnx.load(prepared).graph.node if node.op_type == "Conv"]
        quantize_static(
            prepared,
            quantised,
            _Reader(copies),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=convolutions[:_FIRST] + convolutions[-_LAST:],
        )
        return onnx.load(quantised)


def _halves(source: Path, _: Copies) -> ModelProto:
    with _quiet():
        converted: ModelProto = convert_float_to_float16(onnx.load(source), keep_io_types=True)
    return converted


PRECISIONS: dict[str, Callable[[Path, Copies], ModelProto]] = {"int8": _integers, "fp16": _halves}


def _difference(one: bytes, other: bytes, copies: Copies) -> float:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    sessions = [ort.InferenceSession(m, options, providers=["CPUExecutionProvider"]) for m in (one, other)]

    def chroma(session: Any, copy: NDArray[np.float32]) -> Any:
        return session.run(["ab"], {"lightness": copy[None, None]})[0]

    return float(
        np.mean([np.abs(np.subtract(*(chroma(s, copy) for s in sessions))).mean() for copy in copies])
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep onnxruntime's remarks about the model from the user."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)

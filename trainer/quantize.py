"""Convert an exported model to a variant in another precision: 8-bit integers or 16-bit floats.

The int8 variant is for the CPU. It uses onnxruntime's static quantization with pairs of QuantizeLinear and
DequantizeLinear operators (QDQ), as in Jacob et al. 2018, "Quantization and Training of Neural Networks for
Efficient Integer-Arithmetic-Only Inference". Weights are quantized per channel, activations by their ranges
on calibration pictures. Weights have 7 bits, to avoid the overflow of 16-bit sums on processors without VNNI.
The first convolution and the last three stay in fp32, where rounding is most visible and saves least.

The fp16 variant is for GPUs: all operators are converted, and input and output stay fp32.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16

from colorize_cli.inference import sessions
from colorize_cli.inference.adapters import ModelInfo
from colorize_cli.inference.adapters.native import INPUT, OUTPUT
from trainer.export import ExportError, quiet, write_model

MOST_DIFFERENCE = 1.0
"""Maximum mean difference of a* and b*, in CIE units, between a variant and the model."""
_FIRST, _LAST = 1, 3
"""Number of convolutions at both ends of the network that stay in fp32."""
_CHECKED = 4
"""One in this many copies is excluded from calibration and used to measure the difference."""

Copies = Sequence[NDArray[np.float32]]


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Passes the calibration copies to onnxruntime."""

    def __init__(self, copies: Copies) -> None:
        self._copies = iter(copies)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """Return the next input, or None at the end."""
        copy = next(self._copies, None)
        return None if copy is None else {INPUT: copy[None, None]}


def quantize(source: Path, copies: Copies, out: Path, precision: str = "int8") -> float:
    """Convert the model in `source` to another precision and write it to `out`.

    Args:
        source: an ONNX file written by `export`.
        copies: network inputs of a hundred pictures or more, (h, w) L* in [0, 100].
        out: the ONNX file to write. It appears complete or not at all.
        precision: one of `PRECISIONS`.

    Returns:
        The mean difference of a* and b* between the two models, in CIE units.

    Raises:
        ExportError: if the difference is more than `MOST_DIFFERENCE`, or there are too few pictures.
    """
    if len(copies) < 2 * _CHECKED:
        raise ExportError(
            f"{len(copies)} pictures are too few; {2 * _CHECKED} are needed to calibrate and check"
        )
    content = source.read_bytes()
    calibration = [copy for number, copy in enumerate(copies) if number % _CHECKED]
    model = PRECISIONS[precision](source, calibration)
    metadata = {entry.key: entry.value for entry in onnx.load_from_string(content).metadata_props}
    info = ModelInfo.from_metadata(metadata)
    variant = replace(info, precision=precision, variant_of=hashlib.sha256(content).hexdigest())
    helper.set_model_props(model, metadata | variant.to_metadata())
    difference = _difference(content, model.SerializeToString(), copies[::_CHECKED])
    if not difference <= MOST_DIFFERENCE:
        raise ExportError(f"{out}: a* and b* differ by {difference:.3g} on average (limit {MOST_DIFFERENCE})")
    write_model(model, out)
    return difference


def _to_int8(source: Path, copies: Copies) -> ModelProto:
    with TemporaryDirectory() as folder, quiet():
        prepared, quantized = Path(folder, "prepared.onnx"), Path(folder, "quantized.onnx")
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        convolutions = [node.name for node in onnx.load(prepared).graph.node if node.op_type == "Conv"]
        quantize_static(
            prepared,
            quantized,
            _Reader(copies),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=convolutions[:_FIRST] + convolutions[-_LAST:],
        )
        return onnx.load(quantized)


def _to_fp16(source: Path, _: Copies) -> ModelProto:
    with quiet():
        converted: ModelProto = convert_float_to_float16(onnx.load(source), keep_io_types=True)
    return converted


PRECISIONS: dict[str, Callable[[Path, Copies], ModelProto]] = {"int8": _to_int8, "fp16": _to_fp16}


def _difference(one: bytes, other: bytes, copies: Copies) -> float:
    networks = [sessions.on_cpu(one), sessions.on_cpu(other)]
    differences = []
    for copy in copies:
        first, second = (network.run([OUTPUT], {INPUT: copy[None, None]})[0] for network in networks)
        differences.append(np.abs(first - second).mean())
    return float(np.mean(differences))

"""Stand-in ONNX files."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def write_rgb_model(
    path: Path, kind: str, *, side: int | None, batch: int | None, dtype: int = FLOAT
) -> Path:
    """Write an ONNX file with the signature of another project.

    DDColor's computes a* = 40 red - 20, b* = 20 - 30 blue; DeOldify's red + 20, green, blue - 20 (of 255).
    """
    sides = [batch or "n", 3, side or "h", side or "w"]
    if kind == "ddcolor":
        weights = [[40, 0, 0], [0, 0, -30]]
        offsets = [-20, 20]
    else:
        weights, offsets = np.eye(3).tolist(), [20, 0, -20]
    channels = len(offsets)
    kernel = np.array(weights, np.float32).ravel()
    constants = [
        helper.make_tensor("w", dtype, [channels, 3, 1, 1], kernel),
        helper.make_tensor("b", dtype, [channels], np.array(offsets, np.float32)),
    ]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["input", "w", "b"], ["output"])],
        kind,
        [helper.make_tensor_value_info("input", dtype, sides)],
        [helper.make_tensor_value_info("output", dtype, [sides[0], channels, *sides[2:]])],
        constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


WORKING_SIZE = 64
MULTIPLE_OF = 16
METADATA = {
    "colorize.contract": "1",
    "colorize.name": "stand-in",
    "colorize.working_size": str(WORKING_SIZE),
    "colorize.multiple_of": str(MULTIPLE_OF),
    "colorize.trained_on": "nothing",
    "colorize.licence": "CC0-1.0",
    "colorize.config_hash": "0",
}


@dataclasses.dataclass(frozen=True)
class Models:
    """Paths of stand-in ONNX files.

    Attributes:
        gray: a* = b* = 0.
        tinted: a* = 0.4 (L* - 50), b* = 30 - 0.3 L*, L* averaged over 2 x 2 pixels.
        vivid: a* = 90, b* = -90 everywhere, outside sRGB at most lightnesses.
    """

    gray: Path
    tinted: Path
    vivid: Path


def write_model(
    path: Path,
    gains: tuple[float, float],
    offsets: tuple[float, float],
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write an ONNX file with the native signature: ab = gain * (L*, mean of 2 x 2) + offset."""
    constants = [
        helper.make_tensor("gains", TensorProto.FLOAT, [1, 2, 1, 1], gains),
        helper.make_tensor("offsets", TensorProto.FLOAT, [1, 2, 1, 1], offsets),
    ]
    nodes = [
        helper.make_node("AveragePool", ["lightness"], ["small"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Mul", ["small", "gains"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offsets"], ["ab"]),
    ]
    graph = helper.make_graph(
        nodes,
        "stand-in",
        [helper.make_tensor_value_info("lightness", TensorProto.FLOAT, ["n", 1, "h", "w"])],
        [helper.make_tensor_value_info("ab", TensorProto.FLOAT, ["n", 2, "h2", "w2"])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, METADATA if metadata is None else metadata)
    onnx.save(model, path)
    return path

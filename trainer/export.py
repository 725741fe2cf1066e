"""Export a checkpoint to ONNX. Fails unless torch and onnxruntime give the same result.

`colorize_cli.inference.adapters.native` describes the file.
"""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch import Tensor

from colorize_cli.inference import sessions
from colorize_cli.inference.adapters import ModelInfo
from colorize_cli.inference.adapters.native import INPUT, OUTPUT
from colorize_cli.storage import atomic
from trainer.config import Config, to_json
from trainer.models import Generator

PARITY_TOLERANCE = 0.5
"""Largest difference of a* or b*, in CIE units, that storing the weights as fp16 may make."""
_SMALL = 10_000
"""Weights with fewer values stay fp32: they are small, and rounding the first and last layers shows."""
_USUAL_CHROMA, _SMALLEST_CHROMA = 20.0, 1e-3  # C*ab, in CIE units
_PARITY_BATCHES = (1, 3, 8)
_PARITY_MULTIPLES = ((4, 4), (3, 6))  # height and width, in units of multiple_of


class ExportError(Exception):
    """The exported graph does not compute what the network does."""


@dataclass(frozen=True)
class Calibration:
    """Correction of a network's chroma, found on validation pictures after training.

    A network that is trained on squared or absolute errors predicts colors near the average where it is
    uncertain, above all for the color cast of the whole picture. At equal colorfulness (Hasler & Suesstrunk
    2003, which counts the spread of colors more than their mean) a smaller cast and stronger local colors are
    nearer to the truth.
    """

    gain: float = 1.0
    """Factor on all chroma, for colors as strong as real ones at strength 1."""
    mean_factor: float = 1.0
    """Factor on the picture's mean a* and b*."""
    exponent: float = 1.0
    """Power of chroma relative to C*ab = 20: above 1 pale colors become paler and strong ones stronger."""


@dataclass(frozen=True)
class ModelFacts:
    """Facts about an exported model that its metadata states."""

    name: str
    working_size: int
    """Short side, in pixels, of the copy that the model measured best on."""
    trained_on: str
    license: str
    calibration: Calibration = Calibration()
    """Correction of the network's chroma that is part of the exported model."""


class _Calibrated(Generator):
    """A generator with a correction of its chroma."""

    def __init__(self, generator: Generator, calibration: Calibration) -> None:
        super().__init__()
        self.generator, self.calibration = generator, calibration
        self.multiple_of, self.chroma_scale = generator.multiple_of, generator.chroma_scale

    def forward(self, lightness: Tensor) -> Tensor:
        """(N, 1, H, W) L* => (N, 2, H/s, W/s) a*, b*, corrected."""
        return calibrate(self.generator(lightness), self.calibration)


def calibrate(ab: Tensor, calibration: Calibration) -> Tensor:
    """Correct predicted chroma, each picture by itself; gray stays gray.

    With m the picture's mean ab, x = ab - (1 - mean_factor) m is returned as
    gain * x * (|x| / 20)^(exponent - 1).

    Args:
        ab: (N, 2, h, w) a*, b* in CIE units.
        calibration: the three numbers.
    """
    ab = ab + (calibration.mean_factor - 1) * ab.mean((2, 3), keepdim=True)
    if calibration.exponent != 1:
        chroma = (ab.square().sum(1, keepdim=True) + _SMALLEST_CHROMA**2).sqrt()
        ab = ab * (chroma / _USUAL_CHROMA) ** (calibration.exponent - 1)
    return calibration.gain * ab


def export(generator: Generator, config: Config, facts: ModelFacts, path: Path) -> float:
    """Write a generator as ONNX, with its weights stored as fp16.

    Args:
        generator: The generator, in evaluation mode and on the CPU.
        config: The configuration that it was trained with, for the metadata.
        facts: The rest of the metadata.
        path: The file, which is written atomically.

    Returns:
        The largest difference of a* or b* between torch and onnxruntime, in CIE units.

    Raises:
        ExportError: The difference is `PARITY_TOLERANCE` or more.
    """
    if facts.calibration != Calibration():
        generator = _Calibrated(generator, facts.calibration).eval()
    model = _trace(generator)
    _store_half(model)
    _describe(model, generator, config, facts)
    onnx.checker.check_model(model, full_check=True)
    difference = parity(generator, model)
    if not difference < PARITY_TOLERANCE:
        raise ExportError(
            f"{path}: onnxruntime and torch differ by {difference:.3g} in a* or b* (limit {PARITY_TOLERANCE})"
        )
    write_model(model, path)
    return difference


def write_model(model: ModelProto, path: Path) -> None:
    """Write a model; under its name it appears complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic.writing(path) as file:
        file.write(model.SerializeToString())


def parity(generator: Generator, model: ModelProto) -> float:
    """Largest |ab| difference between torch and onnxruntime on the CPU, over batches and sizes."""
    session = sessions.on_cpu(model.SerializeToString())
    random = torch.Generator().manual_seed(0)
    multiple = generator.multiple_of
    worst = 0.0
    for rows, columns in _PARITY_MULTIPLES:
        for batch in _PARITY_BATCHES:
            lightness = _synthetic_lightness(batch, rows * multiple, columns * multiple, random)
            with torch.inference_mode():
                expected = generator(lightness).numpy()
            found = session.run([OUTPUT], {INPUT: lightness.numpy()})[0]
            if found.shape != expected.shape:
                raise ExportError(f"onnxruntime gives {found.shape} where torch gives {expected.shape}")
            if not (np.isfinite(found).all() and np.isfinite(expected).all()):
                raise ExportError("a* or b* is not a number, in torch or in onnxruntime with fp16 weights")
            worst = max(worst, float(np.abs(found - expected).max()))
    return worst


def _synthetic_lightness(batch: int, height: int, width: int, random: torch.Generator) -> Tensor:
    """Generate lightness with structure at all scales, (N, 1, H, W) in [0, 100]."""
    total = torch.zeros(batch, 1, height, width)
    for cells in (2, 4, 8, 16):
        noise = torch.rand(batch, 1, cells, cells, generator=random)
        total += torch.nn.functional.interpolate(noise, (height, width), mode="bilinear") / cells
    low, high = total.amin((2, 3), keepdim=True), total.amax((2, 3), keepdim=True)
    return 100 * (total - low) / (high - low)


def _trace(generator: Generator) -> ModelProto:
    multiple = generator.multiple_of
    rows, columns = (torch.export.Dim(name, min=2, max=1024) for name in ("rows", "columns"))
    example = torch.zeros(2, 1, 4 * multiple, 5 * multiple)
    with quiet():
        program = torch.onnx.export(
            generator,
            (example,),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("N"), 2: multiple * rows, 3: multiple * columns},),
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # noqa: S101 - dynamo=True always returns one
    return program.model_proto


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress the remarks of torch's exporter about itself, and those of onnxruntime about a model."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, message=".*treespec.*")
            yield
    finally:
        logging.disable(level)


def _store_half(model: ModelProto) -> None:
    """Store every float32 weight but the small ones as fp16, cast back where it is used."""
    casts = []
    for weight in model.graph.initializer:
        if weight.data_type != TensorProto.FLOAT or math.prod(weight.dims) < _SMALL:
            continue
        name = weight.name
        weight.CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), f"{name}.fp16")
        )
        casts.append(helper.make_node("Cast", [weight.name], [name], f"{name}.cast", to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _describe(model: ModelProto, generator: Generator, config: Config, facts: ModelFacts) -> None:
    """Set the metadata and the names of the dynamic dimensions; remove the exporter's debug metadata."""
    scale = generator.chroma_scale
    for node in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info):
        del node.metadata_props[:]
    del model.graph.value_info[:]
    del model.graph.metadata_props[:]
    for value, names in (
        (model.graph.input[0], ("N", None, "H", "W")),
        (model.graph.output[0], ("N", None, f"H/{scale}", f"W/{scale}")),
    ):
        for dimension, name in zip(value.type.tensor_type.shape.dim, names, strict=True):
            if name is not None:
                dimension.dim_param = name
    model.producer_name, model.producer_version = "colorize-train", ""
    info = ModelInfo(
        name=facts.name,
        working_size=facts.working_size,
        multiple_of=generator.multiple_of,
        trained_on=facts.trained_on,
        license=facts.license,
        config_hash=config.hash,
    )
    calibration = json.dumps(asdict(facts.calibration))
    helper.set_model_props(model, info.to_metadata(calibration=calibration, config=to_json(config.published)))

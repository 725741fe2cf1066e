"""Adapt the ONNX files of this project: lightness in, ab out, all scaling inside the network.

    lightness  float32 (N, 1, H, W)      L* in [0, 100]; H and W multiples of `multiple_of`
    ab         float32 (N, 2, H/s, W/s)  CIE a*, b* in CIE units

The metadata fields, all strings: `colorize.contract` ("1"), `colorize.name`, `colorize.working_size`,
`colorize.multiple_of`, `colorize.trained_on`, `colorize.licence`, `colorize.config_hash`. A variant of
another file also has `colorize.precision` and `colorize.variant_of`, the SHA-256 of that file. Not read here:
`colorize.calibration` and `colorize.config`, JSON of what `trainer` applied and how it trained.
"""

from collections.abc import Mapping

from colorize_cli.color.lab import Floats
from colorize_cli.core.errors import ModelError
from colorize_cli.inference.adapters.base import Adapter, ModelFormat, ModelInfo, Signature

VERSION = "1"
INPUT = "lightness"
OUTPUT = "ab"


def _recognize(signature: Signature) -> Adapter | None:
    if signature.metadata.get("colorize.contract") != VERSION:
        return None
    if len(signature.inputs) != 1 or len(signature.outputs) != 1:
        return None
    (lightness,), (ab,) = signature.inputs, signature.outputs
    if (lightness.name, ab.name) != (INPUT, OUTPUT) or {lightness.type, ab.type} != {"tensor(float)"}:
        return None
    if len(lightness.shape) != 4 or len(ab.shape) != 4 or lightness.shape[1] != 1 or ab.shape[1] != 2:
        return None
    if any(isinstance(side, int) for side in (lightness.shape[0], *lightness.shape[2:])):
        return None
    return Adapter(info=_info(signature.metadata), feed=_feed, outputs=(OUTPUT,), chroma=_chroma)


def _feed(lightness: Floats) -> dict[str, Floats]:
    return {INPUT: lightness}


def _chroma(outputs: list[Floats]) -> Floats:
    return outputs[0]


def _info(metadata: Mapping[str, str]) -> ModelInfo:
    def text(key: str) -> str:
        value = metadata.get(f"colorize.{key}")
        if value is None:
            raise ModelError(f"the metadata lacks colorize.{key}")
        return value

    def count(key: str) -> int:
        value = text(key)
        if not (value.isascii() and value.isdigit() and int(value) > 0):
            raise ModelError(f"the metadata field colorize.{key} is {value!r}, not a positive integer")
        return int(value)

    return ModelInfo(
        name=text("name"),
        working_size=count("working_size"),
        multiple_of=count("multiple_of"),
        trained_on=text("trained_on"),
        license=text("licence"),
        config_hash=text("config_hash"),
        precision=metadata.get("colorize.precision", "fp32"),
        variant_of=metadata.get("colorize.variant_of"),
    )


MODEL_FORMAT = ModelFormat(
    accepts=(
        f"input {INPUT} tensor(float) (N, 1, H, W), output {OUTPUT} tensor(float) (N, 2, h, w), "
        f"N, H, W dynamic, metadata colorize.contract {VERSION!r}"
    ),
    recognize=_recognize,
    use=_recognize,
)

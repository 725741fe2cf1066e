"""Adapt the ONNX files of this project: lightness in, ab out, all scaling inside the network.

    lightness  float32 (N, 1, H, W)      L* in [0, 100]; H and W multiples of `multiple_of`
    ab         float32 (N, 2, H/s, W/s)  CIE a*, b* in CIE units

The metadata holds a `ModelInfo`. It also has `colorize.calibration` and `colorize.config`, which are not read
here: JSON of what `trainer` applied and how it trained.
"""

from colorize_cli.inference.adapters.base import CONTRACT, VERSION, Adapter, ModelFormat, ModelInfo, Signature

INPUT = "lightness"
OUTPUT = "ab"


def _recognize(signature: Signature) -> Adapter | None:
    if signature.contract != VERSION or len(signature.inputs) != 1 or len(signature.outputs) != 1:
        return None
    (lightness,), (ab,) = signature.inputs, signature.outputs
    if (lightness.name, ab.name) != (INPUT, OUTPUT) or {lightness.type, ab.type} != {"tensor(float)"}:
        return None
    if len(lightness.shape) != 4 or len(ab.shape) != 4 or lightness.shape[1] != 1 or ab.shape[1] != 2:
        return None
    if any(isinstance(side, int) for side in (lightness.shape[0], *lightness.shape[2:])):
        return None
    return Adapter(
        info=ModelInfo.from_metadata(signature.metadata),
        feed=lambda values: {INPUT: values},
        outputs=(OUTPUT,),
        chroma=lambda outputs: outputs[0],
    )


MODEL_FORMAT = ModelFormat(
    accepts=(
        f"input {INPUT} tensor(float) (N, 1, H, W), output {OUTPUT} tensor(float) (N, 2, h, w), "
        f"N, H, W dynamic, metadata {CONTRACT} {VERSION!r}"
    ),
    recognize=_recognize,
    use=_recognize,
)

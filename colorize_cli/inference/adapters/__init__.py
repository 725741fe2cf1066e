"""Adapt the supported kinds of ONNX file: one file and one row in `MODEL_FORMATS` each.

The name of a new kind is also added to `core.settings.MODEL_KINDS`, which is read before numpy is loaded.
"""

from colorize_cli.core.errors import ModelError
from colorize_cli.inference.adapters import ddcolor, deoldify, native, rgb_input
from colorize_cli.inference.adapters.base import Adapter, ModelFormat, ModelInfo, Signature, Tensor

__all__ = ["MODEL_FORMATS", "Adapter", "ModelFormat", "ModelInfo", "Signature", "Tensor", "recognize"]

MODEL_FORMATS: dict[str, ModelFormat] = {
    "native": native.MODEL_FORMAT,
    ddcolor.NAME: ddcolor.MODEL_FORMAT,
    deoldify.NAME: deoldify.MODEL_FORMAT,
}


def recognize(signature: Signature, kind: str | None = None) -> Adapter:
    """Return the adapter of the first kind that recognizes the file.

    Args:
        signature: Inputs, outputs and metadata of the file.
        kind: Kind given by the user; None to detect it.

    Raises:
        ModelError: No kind, or not the given one, fits. The message lists the file's signature and the
            accepted ones.
    """
    if kind is not None:
        adapter = MODEL_FORMATS[kind].use(signature)
        if adapter is None:
            raise ModelError(f"not a file of kind {kind}. It has {signature}. {_accepted(kind)}")
        return adapter
    for model_format in MODEL_FORMATS.values():
        adapter = model_format.recognize(signature)
        if adapter is not None:
            return adapter
    if rgb_input.pictured(signature) is not None:
        raise ModelError(
            f"its output has no fixed number of channels; name its kind with --model-kind. It has "
            f"{signature}. {_accepted(*MODEL_FORMATS)}"
        )
    raise ModelError(f"not an ONNX file of a supported kind. It has {signature}. {_accepted(*MODEL_FORMATS)}")


def _accepted(*kinds: str) -> str:
    return f"Accepted are {'; '.join(f'{kind}: {MODEL_FORMATS[kind].accepts}' for kind in kinds)}"

"""Adapt the supported kinds of ONNX file: one file and one row in `MODEL_FORMATS` each.

The name of a new kind is also added to `core.settings.MODEL_KINDS`, which is read before numpy is loaded.
"""

from colorize_cli.core.errors import ModelError
from colorize_cli.core.settings import SIZES
from colorize_cli.inference.adapters import ddcolor, deoldify, native, rgb_input
from colorize_cli.inference.adapters.base import Adapter, ModelFormat, ModelInfo, Signature, Tensor

__all__ = ["MODEL_FORMATS", "Adapter", "ModelFormat", "ModelInfo", "Signature", "Tensor", "recognize"]

MODEL_FORMATS: dict[str, ModelFormat] = {
    "native": native.MODEL_FORMAT,
    ddcolor.NAME: ddcolor.MODEL_FORMAT,
    deoldify.NAME: deoldify.MODEL_FORMAT,
}
# Bounds of what a file says of its input, so that no file makes the program take all memory.
_LARGEST_MULTIPLE, _LARGEST_BATCH = 1024, 64


def recognize(signature: Signature, kind: str | None = None) -> Adapter:
    """Return the adapter of the first kind that recognizes the file.

    Args:
        signature: Inputs, outputs and metadata of the file.
        kind: Kind given by the user; None to detect it.

    Raises:
        ModelError: No kind, or not the given one, fits. The message lists the file's signature and the
            accepted ones. Or the sizes of its input are out of bounds.
    """
    adapter = _recognized(signature, kind)
    size, multiple, batch = adapter.info.working_size, adapter.info.multiple_of, adapter.batch or 1
    if not SIZES[0] <= size <= SIZES[1]:
        raise ModelError(f"its working size {size} is not between {SIZES[0]} and {SIZES[1]} pixels")
    if multiple > _LARGEST_MULTIPLE:
        raise ModelError(
            f"the sides of its input are multiples of {multiple}; at most {_LARGEST_MULTIPLE} is possible"
        )
    if batch > _LARGEST_BATCH:
        raise ModelError(f"it has a fixed batch of {batch}; at most {_LARGEST_BATCH} is possible")
    return adapter


def _recognized(signature: Signature, kind: str | None) -> Adapter:
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

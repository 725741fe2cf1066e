"""The kinds of ONNX file that can be used: one file and one row each."""

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
    """The adapter of the first contract that recognises the file.

    Args:
        signature: What the file says of itself.
        kind: The contract that it is said to be of; None to find out.

    Raises:
        ModelError: None does, or not that one; the text gives the signature found and those accepted.
    """
    if kind is not None:
        adapter = MODEL_FORMATS[kind].use(signature)
        if adapter is None:
            raise ModelError(f"no file of the kind {kind}. It has {signature}. {_accepted(kind)}")
        return adapter
    for model_format in MODEL_FORMATS.values():
        adapter = model_format.recognize(signature)
        if adapter is not None:
            return adapter
    if rgb_input.pictured(signature) is not None:
        raise ModelError(
            f"its output may have any number of channels, so say what it is with --model-kind. It has "
            f"{signature}. {_accepted(*MODEL_FORMATS)}"
        )
    raise ModelError(
        f"not an ONNX file of a kind known here. It has {signature}. {_accepted(*MODEL_FORMATS)}"
    )


def _accepted(*kinds: str) -> str:
    return f"Accepted are {'; '.join(f'{kind}: {MODEL_FORMATS[kind].accepts}' for kind in kinds)}"

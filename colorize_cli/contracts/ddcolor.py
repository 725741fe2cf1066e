"""The ONNX files of DDColor.

That is Kang et al. 2023, "DDColor: Towards Photo-Realistic Image Colorization via Dual Decoders".

    input   float32 or float16 (N, 3, S, S)  the grey picture as sRGB in [0, 1]
    output  the same type (N, 2, S, S)       CIE a*, b* in their own units

S and N fixed or dynamic.
"""

from colorize_cli.contracts import foreign
from colorize_cli.contracts.base import Adapter, Contract, Signature

NAME = "ddcolor"
_WORKING_SIZE = 512


def _recognise(signature: Signature) -> Adapter | None:
    found = foreign.pictured(signature)
    return use(signature) if found is not None and found[1].channels == 2 else None


def use(signature: Signature) -> Adapter | None:
    """The adapter of a file that is said to be of this kind; None if it cannot be."""
    found = foreign.pictured(signature)
    if found is None or found[1].channels not in (2, None):
        return None
    return foreign.adapter(signature, NAME, _WORKING_SIZE, 1.0, lambda ab: ab)


CONTRACT = Contract(
    accepts="one input (N, 3, S, S) and one output (N, 2, S, S), float or float16",
    recognise=_recognise,
    use=use,
)

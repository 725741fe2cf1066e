"""The ONNX files of DeOldify (Antic 2019, github.com/jantic/DeOldify).

    input   float32 or float16 (N, 3, S, S)  the grey picture as RGB in 0..255, normalised inside the graph
    output  the same type (N, 3, S, S)       RGB in 0..255, of which only the chroma is used

S and N fixed or dynamic.
"""

import numpy as np

from colorize_cli import color
from colorize_cli.color import Floats
from colorize_cli.contracts import foreign
from colorize_cli.contracts.base import Adapter, Contract, Signature

NAME = "deoldify"
_WORKING_SIZE = 256
_WHITE = 255.0


def _recognise(signature: Signature) -> Adapter | None:
    found = foreign.pictured(signature)
    return use(signature) if found is not None and found[1].channels == 3 else None


def use(signature: Signature) -> Adapter | None:
    """The adapter of a file that is said to be of this kind; None if it cannot be."""
    found = foreign.pictured(signature)
    if found is None or found[1].channels not in (3, None):
        return None
    return foreign.adapter(signature, NAME, _WORKING_SIZE, _WHITE, _chroma)


def _chroma(rgb: Floats) -> Floats:
    srgb = np.moveaxis(np.clip(rgb * np.float32(1 / _WHITE), 0, 1), 1, -1)
    return np.ascontiguousarray(np.moveaxis(color.srgb_to_lab(srgb)[..., 1:], -1, 1))


CONTRACT = Contract(
    accepts="one input (N, 3, S, S) and one output (N, 3, S, S), float or float16",
    recognise=_recognise,
    use=use,
)

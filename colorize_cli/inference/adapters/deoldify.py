"""Adapt the ONNX files of DeOldify (Antic 2019, github.com/jantic/DeOldify).

    input   float32 or float16 (N, 3, S, S)  the gray picture as RGB in 0..255, normalized inside the graph
    output  the same type (N, 3, S, S)       RGB in 0..255; only its chroma is used

S and N are fixed or dynamic.
"""

import numpy as np

from colorize_cli.color import lab
from colorize_cli.color.lab import Floats
from colorize_cli.inference.adapters import rgb_input

NAME = "deoldify"
_WHITE = 255.0


def _chroma(rgb: Floats) -> Floats:
    srgb = np.moveaxis(np.clip(rgb * np.float32(1 / _WHITE), 0, 1), 1, -1)
    return np.ascontiguousarray(np.moveaxis(lab.srgb_to_lab(srgb)[..., 1:], -1, 1))


MODEL_FORMAT = rgb_input.model_format(NAME, channels=3, working_size=256, white=_WHITE, chroma=_chroma)

"""Adapt the ONNX files of DDColor.

Kang et al. 2023, "DDColor: Towards Photo-Realistic Image Colorization via Dual Decoders".

    input   float32 or float16 (N, 3, S, S)  the gray picture as sRGB in [0, 1]
    output  the same type (N, 2, S, S)       CIE a*, b* in CIE units

S and N are fixed or dynamic.
"""

from colorize_cli.inference.adapters import rgb_input

NAME = "ddcolor"
MODEL_FORMAT = rgb_input.model_format(NAME, channels=2, working_size=512, white=1.0, chroma=lambda ab: ab)

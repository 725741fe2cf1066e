"""The ONNX files of DDColor.

That is Kang et al. 2023, "DDColor: Towards Photo-Realistic Image Colorization via Dual Decoders".

    input   float32 or float16 (N, 3, S, S)  the grey picture as sRGB in [0, 1]
    output  the same type (N, 2, S, S)       CIE a*, b* in their own units

S and N fixed or dynamic.
"""

from colorize_cli.inference.adapters import rgb_input

NAME = "ddcolor"
MODEL_FORMAT = rgb_input.model_format(NAME, channels=2, working_size=512, white=1.0, chroma=lambda ab: ab)

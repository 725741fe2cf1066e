"""Train networks that predict chroma from lightness: a conditional GAN in CIE Lab, from pictures to ONNX."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read by onnxruntime when it is imported

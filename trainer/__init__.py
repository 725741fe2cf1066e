"""Train networks that predict chroma from lightness: a conditional GAN in CIE Lab, from pictures to ONNX."""

"""Learn to paint chroma onto lightness: a conditional GAN in CIE Lab, from pictures to an ONNX file."""

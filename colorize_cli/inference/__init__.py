"""Load ONNX files and predict chroma from lightness."""

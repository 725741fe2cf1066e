"""Lightness to chroma: an ONNX file, loaded and run."""

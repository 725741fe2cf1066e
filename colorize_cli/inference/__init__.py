"""Load ONNX files and predict chroma from lightness."""

from pathlib import Path

MODELS = Path(__file__).parents[1] / "models"
"""Folder of the bundled models."""
DEFAULT = MODELS / "default.onnx"
"""The bundled model that is used if no other is named."""

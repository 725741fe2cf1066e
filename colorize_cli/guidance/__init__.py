"""Guidance by the user: color hints and a reference photograph."""

from colorize_cli.guidance.guidance import Guidance, PaletteModel, apply_guidance, hints_of, reference_of
from colorize_cli.guidance.palette import Palette

__all__ = ["Guidance", "Palette", "PaletteModel", "apply_guidance", "hints_of", "reference_of"]

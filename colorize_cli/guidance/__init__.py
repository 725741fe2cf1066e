"""Guidance by the user: color hints and a reference photograph."""

from colorize_cli.guidance.guidance import Guidance, Reference, apply_guidance, hints_of, reference_of

__all__ = ["Guidance", "Reference", "apply_guidance", "hints_of", "reference_of"]

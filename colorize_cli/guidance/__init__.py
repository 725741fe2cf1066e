"""What a user says of colours: hints and a reference."""

from colorize_cli.guidance.guidance import Guidance, Reference, apply_guidance, hints_of, reference_of

__all__ = ["Guidance", "Reference", "apply_guidance", "hints_of", "reference_of"]

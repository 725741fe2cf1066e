"""What a user says of colours: hints and a reference."""

from colorize_cli.guidance.guidance import Reference, Steering, hints_of, reference_of, steered

__all__ = ["Reference", "Steering", "hints_of", "reference_of", "steered"]

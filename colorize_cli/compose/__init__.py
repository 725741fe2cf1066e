"""Combine predicted chroma with full-resolution lightness."""

from colorize_cli.compose.compose import Overlay, Pins, compose, compose16, compose_chroma, compose_planes

__all__ = ["Overlay", "Pins", "compose", "compose16", "compose_chroma", "compose_planes"]

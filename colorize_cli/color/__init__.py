"""Colours as arrays."""

"""A picture file: read, write."""

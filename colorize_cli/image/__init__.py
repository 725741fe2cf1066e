"""Read and write picture files."""

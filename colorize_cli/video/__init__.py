"""Videos: decoding, temporally stable chroma, encoding and muxing."""

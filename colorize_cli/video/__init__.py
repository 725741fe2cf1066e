"""Films: reading frames, writing them again with chroma, and joining what lies beside them."""

"""Training data: `prepare` writes crops once, `dataset` draws batches from them."""

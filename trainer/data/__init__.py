"""Pictures to training batches: `prepare` writes crops once, `dataset` draws batches from them."""

"""HTML pages: of a run, of a comparison of models, and of a training run (a template for `trainer`)."""

"""HTML pages: reports of runs and comparisons of models."""

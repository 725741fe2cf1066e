"""Entry point of `python -m trainer`, the same program as `colorize-train`."""

from trainer.cli import main

main()

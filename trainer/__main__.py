"""`python -m trainer` is `colorize-train`."""

from trainer.cli import main

main()

"""Runs of which an input or the output is in a remote store: what `discovery` and the engines are for paths.

Nothing of this is loaded unless an address is among the inputs or is the output.
"""

from colorize_cli.engine.transfer.running import preview, run
from colorize_cli.storage.remote_discovery import RemotePlan, plan

__all__ = ["RemotePlan", "plan", "preview", "run"]

"""Runs of which an input or the output is in a remote store: what `discovery` and the engines are for paths.

Nothing of this is loaded unless an address is among the inputs or is the output.
"""

from colorize_cli.remote.planning import RemotePlan, plan
from colorize_cli.remote.running import preview, run

__all__ = ["RemotePlan", "plan", "preview", "run"]

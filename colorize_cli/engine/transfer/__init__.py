"""Runs with an input or the output in a remote store: the counterpart of `discovery` and the engines.

Imported only if a location of the run is a URL.
"""

from colorize_cli.engine.transfer.running import preview, run
from colorize_cli.storage.remote_discovery import RemotePlan, plan

__all__ = ["RemotePlan", "plan", "preview", "run"]

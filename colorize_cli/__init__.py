"""Colorize black-and-white photographs.

    from colorize_cli import Colorizer
    colorized = Colorizer().colorize(image)

Nothing heavy is imported until `Colorizer` is accessed.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read by onnxruntime when it is imported

TYPE_CHECKING = False  # `typing` takes a while to import
if TYPE_CHECKING:
    from typing import Any

    from colorize_cli.api import Colorizer

__all__ = ["Colorizer", "__version__"]


def __getattr__(name: str) -> "Any":
    if name == "__version__":
        from importlib.metadata import version

        return version("colorize-cli")
    if name == "Colorizer":
        from colorize_cli.api import Colorizer

        return Colorizer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""What can go wrong, as one tree; each class carries the exit code of a command that ends with it.

    ColorizeError            1
    ├── ReadError            1   a picture that cannot be read
    ├── WriteError           1   a picture that cannot be written
    ├── UsageError           2   the command asks for something that cannot be
    │   └── ModelError       2   no such model, or an ONNX file that this program does not understand
    └── DeviceError          3   the device that was asked for does not work
        └── DeviceMemoryError 3  it has too little memory, even for a single picture

The library raises; only `colorize_cli.cli` prints and exits.
"""

from typing import ClassVar

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_DEVICE = 3
EXIT_INTERRUPTED = 130


class ColorizeError(Exception):
    """Root of the tree. Its text is one line, fit to be shown to a user."""

    exit_code: ClassVar[int] = EXIT_FAILED


class ReadError(ColorizeError):
    """A picture cannot be read. The text says why; whoever shows it names the file."""


class WriteError(ColorizeError):
    """A picture cannot be written. The text says why; whoever shows it names the file."""


class UsageError(ColorizeError):
    """The command asks for something that cannot be: found before any work is done."""

    exit_code = EXIT_USAGE


class ModelError(UsageError):
    """There is no such model file, or it is not one that this program understands."""


class DeviceError(ColorizeError):
    """The device that was asked for cannot run the whole network."""

    exit_code = EXIT_DEVICE


class DeviceMemoryError(DeviceError):
    """The device has too little memory, even for a single picture."""


def one_line(text: object) -> str:
    """The text of an error of a library, which may run over several lines, on one."""
    return " ".join(str(text).split())


def reason_of(error: Exception) -> str:
    """Why something failed, on one line; what only a library raises is called by its name."""
    text = str(error) if isinstance(error, ColorizeError) else f"{type(error).__name__}: {error}"
    return one_line(text)


def printable(text: object) -> str:
    """Text that is safe to print on one line: control characters and undecodable bytes are written out."""

    def escaped(character: str) -> str:
        if character.isprintable():
            return character
        return character.encode("unicode_escape", "surrogatepass").decode("ascii")

    return "".join(map(escaped, str(text)))

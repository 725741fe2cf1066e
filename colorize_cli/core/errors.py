"""Exceptions of the program, as one tree. Each class carries the exit code of a command that ends with it.

    ColorizeError            1
    ├── ReadError            1   a file cannot be read
    ├── WriteError           1   a file cannot be written
    ├── UsageError           2   the command cannot be carried out as given
    │   └── ModelError       2   no such model, or an ONNX file that this program does not support
    └── DeviceError          3   the requested device does not work
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
    """Root of the tree. Its text is one line that can be shown to a user."""

    exit_code: ClassVar[int] = EXIT_FAILED


class ReadError(ColorizeError):
    """A file cannot be read. The text gives the reason; the code that reports it adds the file name."""


class WriteError(ColorizeError):
    """A file cannot be written. The text gives the reason; the code that reports it adds the file name."""


class UsageError(ColorizeError):
    """The command cannot be carried out as given. Raised before any work is done."""

    exit_code = EXIT_USAGE


class ModelError(UsageError):
    """The model file does not exist, or this program does not support it."""


class DeviceError(ColorizeError):
    """The requested device cannot run the whole network."""

    exit_code = EXIT_DEVICE


class DeviceMemoryError(DeviceError):
    """The device has too little memory, even for a single picture."""


_NO_MEMORY = "Insufficient memory"  # OpenCV's error
_DEFECTS: tuple[type[Exception], ...] = (ArithmeticError, AssertionError, AttributeError, LookupError)
_DEFECTS += (NameError, RecursionError, TypeError, ValueError)


def one_line(text: object) -> str:
    """Join the text of a library's error, which may have several lines, into one line."""
    return " ".join(str(text).split())


def reason_of(error: Exception) -> str:
    """Return the reason for a failure on one line."""
    if isinstance(error, ColorizeError):
        return one_line(error)
    if isinstance(error, MemoryError) or _NO_MEMORY in str(error):
        return "not enough memory"
    if isinstance(error, OSError) and error.strerror:  # its file may be a temporary one
        return one_line(error.strerror)
    return f"internal error, please report it: {type(error).__name__}: {one_line(error)}"


def reason_of_damage(error: Exception) -> str:
    """Return, on one line, why a file cannot be read, given what a decoder raised."""
    if isinstance(error, OSError) and not error.strerror:  # Pillow's, of damaged files
        return one_line(error) or "damaged"
    if isinstance(error, ColorizeError | MemoryError | OSError) or _NO_MEMORY in str(error):
        return reason_of(error)
    # The text of these is about the decoder's code, not about the file.
    if isinstance(error, _DEFECTS) or type(error).__module__ in ("cv2", "struct"):
        return "damaged: it cannot be decoded"
    return f"damaged: {one_line(error) or type(error).__name__}"


def printable(text: object) -> str:
    """Return text that is safe to print on one line. Control characters and undecodable bytes are escaped."""

    def escaped(character: str) -> str:
        if character.isprintable():
            return character
        return character.encode("unicode_escape", "surrogatepass").decode("ascii")

    whole = str(text)
    return whole if whole.isprintable() else "".join(map(escaped, whole))

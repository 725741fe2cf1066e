"""Check this installation, and find the command that fixes each problem.

The module level imports only the standard library, click, without which no command starts, and modules of
this package that need nothing else, since any other module may be broken. Each finding is yielded
immediately, so that earlier findings are printed even if a native library crashes the process.
"""

import contextlib
import importlib
import importlib.metadata
import importlib.util
import io
import json
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from colorize_cli.cli import options
from colorize_cli.core.errors import EXIT_FAILED, EXIT_OK, ColorizeError, ReadError, printable, reason_of
from colorize_cli.core.settings import available_cores
from colorize_cli.inference import cuda

if TYPE_CHECKING:
    from colorize_cli.color.lab import Floats
    from colorize_cli.inference.model import Model

_PACKAGE = "colorize-cli"
_HAS_GPU_WHEEL = (sys.platform, platform.machine()) in {("linux", "x86_64"), ("win32", "AMD64")}
# Imported modules, and the distribution that should provide each. numpy precedes the modules that need it, so
# that a report names the cause first.
MODULES: dict[str, str] = {
    "numpy": "numpy",
    "av": "av",
    "click": "click",
    "cv2": "opencv-python-headless",
    "imagecodecs": "imagecodecs",
    "jinja2": "jinja2",
    "onnxruntime": "onnxruntime-gpu" if _HAS_GPU_WHEEL else "onnxruntime",
    "PIL": "pillow",
    "pillow_heif": "pillow-heif",
    "platformdirs": "platformdirs",
    "rich": "rich",
    "simplejpeg": "simplejpeg",
    "tifffile": "tifffile",
}
_NEED_NUMPY = ("cv2", "imagecodecs", "onnxruntime", "simplejpeg", "tifffile")
_WITH_CUDA = "onnxruntime-gpu[cuda,cudnn]>=1.21.1"
# Largest accepted difference in a* or b* between CUDA and the CPU: TF32 and fp16 round more than fp32.
TOLERANCE = 2.0
# Largest accepted mean error in L* of a format. Lossy formats stay far below it on a gradient.
_MAX_LOSS = 2.0


class Verdict(Enum):
    """The severity of a finding."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "PROBLEM"


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        subject: The thing checked, in one word.
        verdict: The severity. A NOTE is not a fault; for example, there is no GPU.
        text: The result, in one line.
        mend: A shell command that fixes the problem; None if there is no problem or no such command.
    """

    subject: str
    verdict: Verdict
    text: str
    mend: str | None = None


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    short_help="Check this installation.",
    epilog="Exit status: 0 no problem, 1 some problems, 2 wrong usage.",
)
@options.model
@click.pass_context
def command(context: click.Context, model: Path | None) -> None:
    """Check this installation, and print commands that fix its problems.

    Checks that the libraries can be loaded, that pictures can be written and read, and that the model runs on
    the CPU and, if there is one, on the GPU.
    """
    context.exit(tell(examine(model), lambda line: click.echo(printable(line))))


def examine(model: Path | None = None) -> Iterator[Finding]:
    """Check this installation. Yields a finding, and never raises, for anything broken.

    Args:
        model: The ONNX file to run on each device; None for the bundled model.
    """
    yield _program()
    owners: Mapping[str, Sequence[str]] = {}
    try:
        owners = _owners()
    except Exception as error:  # damaged metadata raises anything
        yield Finding("pip", Verdict.PROBLEM, f"cannot list the installed packages: {reason_of(error)}")
    problems = set()
    for module in MODULES:
        finding = _module(module, owners.get(module, ()), numpy_works="numpy" not in problems)
        if finding.verdict is Verdict.PROBLEM:
            problems.add(module)
        yield finding
    yield from _guarded("formats", _formats(owners), explained=bool(problems))
    yield from _guarded("model", _network(model, owners), explained=bool(problems))
    memory = _memory()
    text = f"memory: {memory / 2**30:.1f} GiB" if memory else "memory: unknown"
    yield Finding("machine", Verdict.OK, f"CPU cores for this process: {available_cores()}, {text}")


def tell(findings: Iterable[Finding], write: Callable[[str], None]) -> int:
    """Write each finding as it arrives, then the number of problems.

    Args:
        findings: The findings, as `examine` yields them.
        write: Receives one line at a time. Texts of errors may hold any character except line breaks.

    Returns:
        The exit status: EXIT_FAILED if there is any problem, else EXIT_OK.
    """
    problems = 0
    for finding in findings:
        problems += finding.verdict is Verdict.PROBLEM
        write(f"{finding.verdict.value:<7}  {finding.subject:<12}  {finding.text}")
        if finding.mend is not None:
            write(f"         fix it with: {finding.mend}")
    write(f"{problems} problem{'s' if problems > 1 else ''} found" if problems else "no problem found")
    return EXIT_FAILED if problems else EXIT_OK


def _guarded(subject: str, part: Iterator[Finding], *, explained: bool = False) -> Iterator[Finding]:
    """Yield the findings of `part`. An exception becomes a problem, or a note if it is `explained`."""
    try:
        yield from part
    except Exception as error:  # a broken installation raises anything
        if explained:
            yield Finding(subject, Verdict.NOTE, f"not checked; fix the above first: {reason_of(error)}")
        else:
            yield Finding(subject, Verdict.PROBLEM, reason_of(error))


def _program() -> Finding:
    python = f"Python {platform.python_version()} ({sys.executable}), {platform.platform()}"
    try:
        return Finding("colorize-cli", Verdict.OK, f"{importlib.metadata.version(_PACKAGE)}, {python}")
    except importlib.metadata.PackageNotFoundError:
        root = Path(__file__).parents[2]
        text = f"not installed, but run from {root}; {python}"
        return Finding("colorize-cli", Verdict.PROBLEM, text, f"{_pip()} install {_quoted(root)}")


def _owners() -> dict[str, tuple[str, ...]]:
    """Map each module to the installed distributions that provide it."""
    return {
        module: tuple(sorted({name.lower().replace("_", "-") for name in names if name}))
        for module, names in importlib.metadata.packages_distributions().items()
    }


def _import(module: str) -> str:
    """Import a module and return the path of its file."""
    with contextlib.redirect_stdout(sys.stderr):
        file = importlib.import_module(module).__file__
    if file is None:  # a leftover folder imports as a namespace package
        raise ImportError("its files are missing")
    return file


def _module(module: str, owners: Sequence[str], *, numpy_works: bool = True) -> Finding:
    """Import a module, and check that one distribution provides it. Several overwrite each other's files."""
    wanted = MODULES[module]
    mend = _replace(owners, _requirement(wanted))
    names = " and ".join(owners)
    try:
        file = _import(module)
    except Exception as error:  # native modules raise more than ImportError
        if not owners and isinstance(error, ModuleNotFoundError) and error.name == module:
            return Finding(module, Verdict.PROBLEM, "not installed", mend)
        text = f"cannot be imported (from {names or 'unknown origin'}): {reason_of(error)}"
        if not numpy_works and module in _NEED_NUMPY:
            return Finding(module, Verdict.PROBLEM, f"{text}; fix numpy first")
        if module == "cv2" and not all(owner.endswith("-headless") for owner in owners):
            text += f"; {wanted} needs no desktop libraries"
        return Finding(module, Verdict.PROBLEM, text, mend)
    if len(owners) > 1:
        return Finding(module, Verdict.PROBLEM, f"{names} have overwritten each other's files", mend)
    if not owners:
        return Finding(module, Verdict.NOTE, f"not installed by pip: {file}")
    return Finding(module, Verdict.OK, f"{importlib.metadata.version(owners[0])} ({names})")


def _formats(owners: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    """Write and read a small picture in each format, by the functions that a run uses."""
    from colorize_cli.core.formats import WRITABLE

    works = []
    for format_ in WRITABLE:
        try:
            _write_and_read(format_)
        except (ColorizeError, KeyError, OSError) as error:  # Pillow without the codec
            mend = _replace(owners.get("PIL", ()), _requirement(MODULES["PIL"]))
            text = f"{format_} cannot be written and read: {reason_of(error)}"
            yield Finding("formats", Verdict.PROBLEM, text, mend)
        else:
            works.append(format_)
    if works:
        yield Finding("formats", Verdict.OK, f"{', '.join(works)} can be written and read")


def _write_and_read(format_: str) -> None:
    import numpy as np
    from PIL import Image

    from colorize_cli.color.ycbcr import BytePlanes
    from colorize_cli.image import reader, writer
    from colorize_cli.image.frame import from_image

    gray = np.add.outer(np.arange(64, dtype=np.uint8), np.arange(64, dtype=np.uint8))
    frame = from_image(Image.fromarray(gray))
    file = io.BytesIO()
    neutral = np.full((32, 32), 128, np.uint8)
    colors = BytePlanes(gray, neutral, neutral) if format_ == "JPEG" else np.dstack([gray] * 3)
    writer.encode(file, format_, [(frame, colors)])
    read = reader.read(file.getvalue(), max_pixels=4 * gray.size).lightness
    off = np.abs(read.rows(0, 64) - frame.lightness.rows(0, 64)).mean()
    if off > _MAX_LOSS:
        raise ReadError(f"the picture read back differs by {off:.1f} L* from the one written")


def _network(path: Path | None, owners: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    """Load the model, and run it on the CPU and on CUDA."""
    from colorize_cli.inference import model

    try:
        cpu = model.load(path, "cpu", precision="fp32")  # the reference for CUDA
    except ColorizeError as error:
        yield Finding("model", Verdict.PROBLEM, str(error), None if path else _reinstall())
        yield Finding("devices", Verdict.NOTE, "not checked without a model")
        return
    info = cpu.info
    text = f"working size {info.working_size}, trained on: {info.trained_on}, license: {info.license}"
    yield Finding("model", Verdict.OK, f"{info.name} ({path or 'bundled'}), {text}")
    lightness = _sample(cpu)
    try:
        ab, speed = _run(cpu, lightness)
    except ColorizeError as error:
        yield Finding("cpu", Verdict.PROBLEM, str(error))
        return
    yield Finding("cpu", Verdict.OK, f"runs the model, {speed}")
    yield from _guarded("cuda", _cuda(path, lightness, ab, owners.get("onnxruntime", ())))


def _sample(network: "Model") -> "Floats":
    """Return a gradient from black to white at the working size, float32 (1, 1, side, side)."""
    import numpy as np

    multiple = network.info.multiple_of
    side = max(1, round(network.info.working_size / multiple)) * multiple
    slope = np.linspace(0, 50, side, dtype=np.float32)
    return np.add.outer(slope, slope)[None, None]


def _run(network: "Model", lightness: "Floats") -> tuple["Floats", str]:
    """Return the predicted chroma and a description of the time of the second call, in ms."""
    network.predict(lightness)
    start = time.perf_counter()
    ab = network.predict(lightness)
    milliseconds = 1000 * (time.perf_counter() - start)
    height, width = lightness.shape[2:]
    return ab, f"{milliseconds:.1f} ms for {width} x {height} pixels"


def _cuda(
    path: Path | None, lightness: "Floats", expected: "Floats", owners: Sequence[str]
) -> Iterator[Finding]:
    """Run the model on CUDA and compare it with the CPU, or explain the failure."""
    import numpy as np

    from colorize_cli.inference import model

    found = cuda.ask()
    if found is None:
        yield Finding("cuda", Verdict.NOTE, "no NVIDIA driver is installed; the CPU is used")
        return
    if found.error:
        verdict = Verdict.NOTE if found.code == cuda.NO_DEVICE else Verdict.PROBLEM
        yield Finding("cuda", verdict, f"the NVIDIA driver does not start: {found.error}")
        return
    major, minor = found.cuda
    text = f"NVIDIA, for CUDA up to {major}.{minor}: {', '.join(found.gpus)}"
    yield Finding("driver", Verdict.OK, text)
    try:
        ab, speed = _run(model.load(path, "cuda"), lightness)
    except Exception as error:  # a damaged onnxruntime raises anything
        yield from _failed(error, found, owners)
        return
    off = float(np.abs(ab - expected).max()) if ab.shape == expected.shape else float("inf")
    if off > TOLERANCE:
        text = f"runs the model, but a* and b* differ by {off:.1f} from the CPU's; use --device cpu"
        yield Finding("cuda", Verdict.PROBLEM, text)
    else:
        yield Finding("cuda", Verdict.OK, f"runs the model, {speed}, within {off:.2f} of the CPU's a* and b*")
    yield from _libraries(needed=False)


def _failed(error: Exception, found: cuda.Driver, owners: Sequence[str]) -> Iterator[Finding]:
    """Explain why CUDA does not work although there is a driver."""
    import onnxruntime

    text = reason_of(error)
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        if _HAS_GPU_WHEEL:
            yield Finding("cuda", Verdict.PROBLEM, text, _replace(owners, _WITH_CUDA))
        else:
            yield Finding("cuda", Verdict.NOTE, f"{text}, but onnxruntime-gpu has no wheel for this platform")
        return
    if not hasattr(onnxruntime, "preload_dlls"):  # before 1.21
        text = f"this onnxruntime is too old to find CUDA libraries installed by pip ({text})"
        yield Finding("cuda", Verdict.PROBLEM, text, _replace(owners, _WITH_CUDA))
        return
    if found.cuda[0] < _cuda_major():
        text = f"the driver is too old for CUDA {onnxruntime.cuda_version}; install a newer one ({text})"
    yield Finding("cuda", Verdict.PROBLEM, text)
    yield from _libraries(needed=True)


def _libraries(*, needed: bool) -> Iterator[Finding]:
    """Report which CUDA libraries load. A missing one is a problem only if `needed`."""
    import onnxruntime

    with contextlib.redirect_stdout(io.StringIO()):  # it prints the same information
        onnxruntime.preload_dlls()
    names = cuda.library_names(_cuda_major())
    missing = [name for name in names if cuda.library(name) is None]
    loaded = [name for name in names if name not in missing]
    text = f"CUDA {onnxruntime.cuda_version}: loaded {', '.join(loaded) or 'none'}"
    if not missing:
        yield Finding("libraries", Verdict.OK, text)
        return
    text += f"; not loaded {', '.join(missing)}"
    if needed:
        yield Finding("libraries", Verdict.PROBLEM, text, f"{_pip()} install {_quoted(_WITH_CUDA)}")
    else:
        yield Finding("libraries", Verdict.NOTE, f"{text} (not needed by this model)")


def _cuda_major() -> int:
    import onnxruntime

    return int(onnxruntime.cuda_version.partition(".")[0])


def _memory() -> int | None:
    """Return the memory available to this process, in bytes: the machine's or the limit of its cgroup."""
    limits = []
    with contextlib.suppress(AttributeError, ValueError, OSError):  # not on Windows
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # "max" means no limit
            limits.append(int(Path(file).read_text(encoding="ascii")))
    return min(limits, default=None)


def _requirement(distribution: str) -> str:
    """Return this project's requirement for a distribution, for example `pillow>=11.3`."""
    try:
        requirements = importlib.metadata.requires(_PACKAGE) or ()
    except importlib.metadata.PackageNotFoundError:
        return distribution
    for text in requirements:
        requirement, _, marker = text.partition(";")
        if "extra" not in marker and re.split(r"[^\w.-]", requirement)[0] == distribution:
            return requirement.strip()
    return distribution


def _replace(installed: Sequence[str], requirement: str) -> str:
    """Return the command that removes distributions with all their files, then installs `requirement`."""
    install = f"{_pip()} install {_quoted(requirement)}"
    return f"{_pip()} uninstall -y {' '.join(installed)} && {install}" if installed else install


def _reinstall() -> str | None:
    """Return the command that reinstalls this program from its origin; None if it runs from its source."""
    try:
        direct_url = importlib.metadata.distribution(_PACKAGE).read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return None
    origin: dict[str, Any] = json.loads(direct_url) if direct_url else {"url": _PACKAGE}
    if origin.get("dir_info", {}).get("editable"):
        return None
    return f"{_pip()} install --force-reinstall --no-deps {_quoted(origin['url'])}"


def _pip() -> str:
    """Return the command of the pip that belongs to this Python."""
    found = shutil.which("pip")
    if found and Path(found).parent == Path(sys.executable).parent:
        return "pip"
    pip = f"{_quoted(sys.executable)} -m pip"
    if importlib.util.find_spec("pip") is None:
        return f"{_quoted(sys.executable)} -m ensurepip && {pip}"
    return pip


def _quoted(argument: object) -> str:
    """Quote an argument for the shells of all systems. It must not hold quotes or dollar signs."""
    return str(argument) if re.fullmatch(r"[\w./:-]+", str(argument)) else f'"{argument}"'

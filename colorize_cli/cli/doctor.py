"""What works in this installation, what does not, and the command that mends it.

Above the functions only the standard library is imported, and of this package what needs nothing else: the
parts that are examined may be what is broken. Each finding is yielded as soon as it is known, so that even
a native library that ends the process leaves behind what was found before.
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

from colorize_cli.core.errors import EXIT_FAILED, EXIT_OK, ColorizeError, ReadError, reason_of
from colorize_cli.core.settings import available_cores
from colorize_cli.inference import cuda

if TYPE_CHECKING:
    from colorize_cli.color.lab import Floats
    from colorize_cli.inference.model import Model

_PACKAGE = "colorize-cli"
_HAS_GPU_WHEEL = (sys.platform, platform.machine()) in {("linux", "x86_64"), ("win32", "AMD64")}
# Each module that this program imports, and which of the distributions that may offer it is wanted;
# numpy before those that need it, so that what is first in a report is the cause.
MODULES: dict[str, str] = {
    "numpy": "numpy",
    "av": "av",
    "click": "click",
    "cv2": "opencv-python-headless",
    "onnxruntime": "onnxruntime-gpu" if _HAS_GPU_WHEEL else "onnxruntime",
    "PIL": "pillow",
    "platformdirs": "platformdirs",
    "rich": "rich",
    "simplejpeg": "simplejpeg",
}
_NEED_NUMPY = ("cv2", "onnxruntime", "simplejpeg")
_WITH_CUDA = "onnxruntime-gpu[cuda,cudnn]"
# By how much a* or b* may differ between CUDA and the CPU: TF32 and fp16 round more coarsely than fp32.
TOLERANCE = 2.0
# Mean L* that a format may lose; the lossy ones lose far less of a slope.
_MOST_LOSS = 2.0


class Verdict(Enum):
    """What a finding means for who wants to colour pictures."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "PROBLEM"


@dataclass(frozen=True)
class Finding:
    """One thing that was examined.

    Attributes:
        subject: What was examined, in a word.
        verdict: Whether it is well. A note is no fault: that there is no GPU, for instance.
        text: What was found, in one line.
        mend: The command that mends it, for a shell; None where there is nothing to mend, or no command can.
    """

    subject: str
    verdict: Verdict
    text: str
    mend: str | None = None


def examine(model: Path | None = None) -> Iterator[Finding]:
    """Examines this installation. What is broken ends in a finding, never in an exception.

    Args:
        model: The ONNX file to try on each device; None for the model that comes with this package.
    """
    yield _program()
    owners: Mapping[str, Sequence[str]] = {}
    try:
        owners = _owners()
    except Exception as error:  # metadata in pieces
        yield Finding("pip", Verdict.PROBLEM, f"cannot say what is installed: {reason_of(error)}")
    problems = set()
    for module in MODULES:
        finding = _module(module, owners.get(module, ()), numpy_works="numpy" not in problems)
        if finding.verdict is Verdict.PROBLEM:
            problems.add(module)
        yield finding
    yield from _guarded("formats", _formats(owners), explained=bool(problems))
    yield from _guarded("model", _network(model, owners), explained=bool(problems))
    yield _machine()


def tell(findings: Iterable[Finding], write: Callable[[str], None]) -> int:
    """Writes findings, line by line as they come, and at the end how many problems there are.

    Args:
        findings: What `examine` yields.
        write: Receives one line at a time. What errors say may hold any character but line breaks.

    Returns:
        The exit status for a command that does this: EXIT_FAILED if there is any problem.
    """
    problems = 0
    for finding in findings:
        problems += finding.verdict is Verdict.PROBLEM
        write(f"{finding.verdict.value:<7}  {finding.subject:<12}  {finding.text}")
        if finding.mend is not None:
            write(f"         mend it with: {finding.mend}")
    write(f"{problems} problem{'s' if problems > 1 else ''} found" if problems else "no problem found")
    return EXIT_FAILED if problems else EXIT_OK


def _guarded(subject: str, part: Iterator[Finding], *, explained: bool = False) -> Iterator[Finding]:
    """Findings, and one more if an error ends them: a problem, unless other findings have `explained` it."""
    try:
        yield from part
    except Exception as error:  # whatever a broken installation raises
        if explained:
            yield Finding(subject, Verdict.NOTE, f"to be tried when the above is mended: {reason_of(error)}")
        else:
            yield Finding(subject, Verdict.PROBLEM, reason_of(error))


def _program() -> Finding:
    where = f"Python {platform.python_version()} ({sys.executable}), {platform.platform()}"
    try:
        return Finding("colorize-cli", Verdict.OK, f"{importlib.metadata.version(_PACKAGE)}, {where}")
    except importlib.metadata.PackageNotFoundError:
        root = Path(__file__).parents[2]
        text = f"not installed, only run from {root}; {where}"
        return Finding("colorize-cli", Verdict.PROBLEM, text, f"{_pip()} install {_quoted(root)}")


def _owners() -> dict[str, tuple[str, ...]]:
    """The installed distributions that offer each module."""
    return {
        module: tuple(sorted({name.lower().replace("_", "-") for name in names if name}))
        for module, names in importlib.metadata.packages_distributions().items()
    }


def _import(module: str) -> str:
    """Imports a module; where its file is."""
    with contextlib.redirect_stdout(sys.stderr):
        file = importlib.import_module(module).__file__
    if file is None:  # a folder that was left behind passes for a namespace
        raise ImportError("its files are gone")
    return file


def _module(module: str, owners: Sequence[str], *, numpy_works: bool = True) -> Finding:
    """Imports a module, and sees who offers it: several that do have overwritten each other's files."""
    wanted = MODULES[module]
    mend = _replace(owners, _requirement(wanted))
    names = " and ".join(owners)
    try:
        file = _import(module)
    except Exception as error:  # native modules raise more than ImportError
        if not owners and isinstance(error, ModuleNotFoundError) and error.name == module:
            return Finding(module, Verdict.PROBLEM, "not installed", mend)
        text = f"of {names or 'unknown origin'} cannot be imported: {reason_of(error)}"
        if not numpy_works and module in _NEED_NUMPY:
            return Finding(module, Verdict.PROBLEM, f"{text}; mend numpy first")
        if module == "cv2" and not all(owner.endswith("-headless") for owner in owners):
            text += f"; {wanted} needs no libraries of a desktop"
        return Finding(module, Verdict.PROBLEM, text, mend)
    if len(owners) > 1:
        return Finding(module, Verdict.PROBLEM, f"{names} have overwritten each other's files", mend)
    if not owners:
        return Finding(module, Verdict.NOTE, f"not installed by pip: {file}")
    return Finding(module, Verdict.OK, f"{importlib.metadata.version(owners[0])} ({names})")


def _formats(owners: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    """Writes and reads a small picture in each format, as a run does."""
    from colorize_cli.core.formats import WRITABLE

    works = []
    for format_ in WRITABLE:
        try:
            _write_and_read(format_)
        except (ColorizeError, KeyError, OSError) as error:  # what a Pillow without that codec ends in
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
    read = reader.read(file.getvalue(), max_pixels=gray.size).lightness
    off = np.abs(read.rows(0, 64) - frame.lightness.rows(0, 64)).mean()
    if off > _MOST_LOSS:
        raise ReadError(f"what was read is {off:.1f} L* from what was written")


def _network(path: Path | None, owners: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    """Loads the model, and runs it on the CPU and on CUDA."""
    from colorize_cli.inference import model

    try:
        cpu = model.load(path, "cpu", precision="fp32")  # what CUDA is compared with
    except ColorizeError as error:
        yield Finding("model", Verdict.PROBLEM, str(error), None if path else _install_anew())
        yield Finding("devices", Verdict.NOTE, "not tried, for want of a model")
        return
    info = cpu.info
    text = f"working size {info.working_size}, trained on: {info.trained_on}, licence: {info.license}"
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
    """One picture of the size that the network likes best: a slope from black to white."""
    import numpy as np

    multiple = network.info.multiple_of
    side = max(1, round(network.info.working_size / multiple)) * multiple
    slope = np.linspace(0, 50, side, dtype=np.float32)
    return np.add.outer(slope, slope)[None, None]


def _run(network: "Model", lightness: "Floats") -> tuple["Floats", str]:
    """The chroma, which is finite, and in words how long the second call took."""
    network.predict(lightness)
    start = time.perf_counter()
    ab = network.predict(lightness)
    took = 1000 * (time.perf_counter() - start)
    height, width = lightness.shape[2:]
    return ab, f"{took:.1f} ms for {width} x {height} pixels"


def _cuda(
    path: Path | None, lightness: "Floats", expected: "Floats", owners: Sequence[str]
) -> Iterator[Finding]:
    """Runs the model on CUDA; where that fails, says why."""
    import numpy as np

    from colorize_cli.inference import model

    found = cuda.ask()
    if found is None:
        yield Finding("cuda", Verdict.NOTE, "no NVIDIA driver is installed here; the CPU does the work")
        return
    if found.error:
        verdict = Verdict.NOTE if found.code == cuda.NO_DEVICE else Verdict.PROBLEM
        yield Finding("cuda", verdict, f"an NVIDIA driver is here and does not start: {found.error}")
        return
    major, minor = found.cuda
    text = f"NVIDIA, for CUDA up to {major}.{minor}: {', '.join(found.gpus)}"
    yield Finding("driver", Verdict.OK, text)
    try:
        ab, speed = _run(model.load(path, "cuda"), lightness)
    except Exception as error:  # an onnxruntime in pieces raises anything
        yield from _failed(error, found, owners)
        return
    off = float(np.abs(ab - expected).max()) if ab.shape == expected.shape else float("inf")
    if off > TOLERANCE:
        text = f"runs the model, but a* and b* are {off:.1f} off the CPU's; use --device cpu"
        yield Finding("cuda", Verdict.PROBLEM, text)
    else:
        yield Finding("cuda", Verdict.OK, f"runs the model, {speed}, within {off:.2f} of the CPU's a* and b*")
    yield from _libraries(needed=False)


def _failed(error: Exception, found: cuda.Driver, owners: Sequence[str]) -> Iterator[Finding]:
    """Why CUDA does not work although there is a driver."""
    import onnxruntime

    text = reason_of(error)
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        if _HAS_GPU_WHEEL:
            yield Finding("cuda", Verdict.PROBLEM, text, _replace(owners, _WITH_CUDA))
        else:
            yield Finding("cuda", Verdict.NOTE, f"{text}, but has no wheel for this platform")
        return
    if not hasattr(onnxruntime, "preload_dlls"):  # before 1.21
        text = f"this onnxruntime is too old to find CUDA libraries that pip installed ({text})"
        yield Finding("cuda", Verdict.PROBLEM, text, _replace(owners, _WITH_CUDA))
        return
    if found.cuda[0] < _cuda_major():
        text = f"the driver is too old for CUDA {onnxruntime.cuda_version}; install a newer one ({text})"
    yield Finding("cuda", Verdict.PROBLEM, text)
    yield from _libraries(needed=True)


def _libraries(*, needed: bool) -> Iterator[Finding]:
    """Which of the CUDA libraries load; where CUDA works without one it is not `needed`."""
    import onnxruntime

    with contextlib.redirect_stdout(io.StringIO()):  # it says there what is said here
        onnxruntime.preload_dlls()
    names = cuda.library_names(_cuda_major())
    missing = [name for name in names if cuda.library(name) is None]
    loaded = [name for name in names if name not in missing]
    text = f"of CUDA {onnxruntime.cuda_version} load {', '.join(loaded) or 'none'}"
    if not missing:
        yield Finding("libraries", Verdict.OK, text)
        return
    text += f"; do not load {', '.join(missing)}"
    if needed:
        yield Finding("libraries", Verdict.PROBLEM, text, f"{_pip()} install {_quoted(_WITH_CUDA)}")
    else:
        yield Finding("libraries", Verdict.NOTE, f"{text}, which this model does not need")


def _cuda_major() -> int:
    import onnxruntime

    return int(onnxruntime.cuda_version.partition(".")[0])


def _machine() -> Finding:
    memory = _memory()
    text = f"memory: {memory / 2**30:.1f} GiB" if memory else "memory: unknown"
    return Finding("machine", Verdict.OK, f"CPU cores for this process: {available_cores()}, {text}")


def _memory() -> int | None:
    """Bytes of memory that this process may use: the machine's, or fewer where its cgroup says so."""
    limits = []
    with contextlib.suppress(AttributeError, ValueError, OSError):  # no such question on Windows
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # "max" is no limit
            limits.append(int(Path(file).read_text(encoding="ascii")))
    return min(limits, default=None)


def _requirement(distribution: str) -> str:
    """What this project asks of a distribution, `pillow>=11.3` for instance."""
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
    """The command that removes distributions with all their files, and installs one in their place."""
    install = f"{_pip()} install {_quoted(requirement)}"
    return f"{_pip()} uninstall -y {' '.join(installed)} && {install}" if installed else install


def _install_anew() -> str | None:
    """The command that installs this program again from where it came; None where that is where it runs."""
    try:
        said = importlib.metadata.distribution(_PACKAGE).read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return None
    origin: dict[str, Any] = json.loads(said) if said else {"url": _PACKAGE}
    if origin.get("dir_info", {}).get("editable"):
        return None
    return f"{_pip()} install --force-reinstall --no-deps {_quoted(origin['url'])}"


def _pip() -> str:
    """How pip is called for this Python and no other."""
    found = shutil.which("pip")
    if found and Path(found).parent == Path(sys.executable).parent:
        return "pip"
    pip = f"{_quoted(sys.executable)} -m pip"
    if importlib.util.find_spec("pip") is None:
        return f"{_quoted(sys.executable)} -m ensurepip && {pip}"
    return pip


def _quoted(argument: object) -> str:
    """As shells on every system take it; in no argument here is there a quote or a dollar."""
    return str(argument) if re.fullmatch(r"[\w./:-]+", str(argument)) else f'"{argument}"'

import ctypes
import dataclasses
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from packaging.requirements import Requirement
from PIL import Image

import colorize_cli
from colorize_cli.cli import doctor
from colorize_cli.cli.doctor import Finding, Verdict
from colorize_cli.core import settings
from colorize_cli.core.errors import DeviceError
from colorize_cli.core.formats import WRITABLE
from colorize_cli.image import reader, writer
from colorize_cli.image.frame import from_image
from colorize_cli.inference import cuda as inference_cuda
from colorize_cli.inference import model
from tests.helpers.models import write_model

LOAD = model.load
DRIVER = inference_cuda.Driver((13, 0), ("A GPU",))
ONNXRUNTIME = doctor.MODULES["onnxruntime"]
EXAMINE = """
import sys
from pathlib import Path
from colorize_cli.cli import doctor
print("modules:", *sorted({"cv2", "numpy", "onnxruntime", "PIL", "rich"} & set(sys.modules)))
sys.exit(doctor.tell(doctor.examine(Path(sys.argv[1])), print))
"""


@pytest.fixture(autouse=True)
def plain_pip(monkeypatch):
    monkeypatch.setattr(doctor, "_pip", lambda: "pip")


@pytest.fixture
def gpu(monkeypatch):
    """Fake a driver, an onnxruntime for CUDA 13 and its libraries. "cuda" runs on the CPU."""
    monkeypatch.setattr(inference_cuda, "ask", lambda: DRIVER)
    monkeypatch.setattr(inference_cuda, "library", lambda _: object())
    monkeypatch.setattr(doctor, "_HAS_GPU_WHEEL", True)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "cuda_version", "13.0", raising=False)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: sys.stdout.write("noise"), raising=False)
    monkeypatch.setattr(
        model, "load", lambda path, device, **_: dataclasses.replace(LOAD(path, "cpu"), device=device)
    )


def examined(path: Path | None = None) -> dict[str, Finding]:
    """Return findings by subject; the last of each."""
    return {finding.subject: finding for finding in doctor.examine(path)}


def finding_of(subject: str, path: Path | None = None) -> Finding:
    """Return the first finding about a subject. Later checks are not run."""
    return next(finding for finding in doctor.examine(path) if finding.subject == subject)


def problems(found: dict[str, Finding]) -> set[str]:
    return {subject for subject, finding in found.items() if finding.verdict is Verdict.PROBLEM}


def cuda_fails(monkeypatch, error: Exception) -> None:
    def load(path, device, **_):
        if device == "cuda":
            raise error
        return LOAD(path, device)

    monkeypatch.setattr(model, "load", load)


def install(folder: Path, name: str, module: str) -> None:
    """Install a distribution that provides a module, as pip does."""
    info = folder / f"{name.replace('-', '_')}-9.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n")
    (info / "RECORD").write_text(f"{module}/__init__.py,,\n{info.name}/METADATA,,\n")


def in_a_process(folder: Path, network: Path) -> tuple[int, str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, sys.path)])}
    done = subprocess.run(
        [sys.executable, "-c", EXAMINE, network], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.endswith("found\n"), done.stderr
    return done.returncode, done.stdout


def test_doctor_finds_no_problem_in_a_healthy_installation(models, monkeypatch):
    monkeypatch.setattr(inference_cuda, "ask", lambda: None)
    lines = []
    findings = list(doctor.examine(models.tinted))
    assert doctor.tell(findings, lines.append) == 0
    assert lines[-1] == "no problem found"
    found = {finding.subject: finding for finding in findings}
    assert set(doctor.MODULES) < found.keys()
    assert found["numpy"].text == f"{np.__version__} (numpy)"
    assert colorize_cli.__version__ in found["colorize-cli"].text
    assert found["formats"].text == f"{', '.join(WRITABLE)} can be written and read"
    assert found["model"].text == (
        f"stand-in ({models.tinted}), working size 64, trained on: nothing, license: CC0-1.0"
    )
    assert "ms for 64 x 64 pixels" in found["cpu"].text
    assert str(settings.available_cores()) in found["machine"].text
    assert all(finding.mend is None for finding in findings)


def test_doctor_examines_the_bundled_model(bundled_model, monkeypatch):
    monkeypatch.setattr(inference_cuda, "ask", lambda: None)
    found = examined()
    assert "(bundled)" in found["model"].text
    assert found["cpu"].verdict is Verdict.OK


def test_module_table_equals_the_requirements_of_the_project():
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    wanted = {
        requirement.name
        for requirement in map(Requirement, project["dependencies"])
        if requirement.marker is None or requirement.marker.evaluate()
    }
    assert set(doctor.MODULES.values()) == wanted


def test_cpu_stand_in_satisfies_the_project_but_not_its_extra_for_cuda():
    root = Path(__file__).parents[3]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    stand_in = tomllib.loads((root / "cpu" / "pyproject.toml").read_text())["project"]
    assert stand_in["name"] == "onnxruntime-gpu"
    plain = next(r for r in map(Requirement, project["dependencies"]) if r.name == stand_in["name"])
    assert plain.specifier.contains(stand_in["version"])
    (with_cuda,) = map(Requirement, project["optional-dependencies"]["cuda"])
    assert str(with_cuda) == str(Requirement(doctor._WITH_CUDA))
    assert not with_cuda.specifier.contains(stand_in["version"])


def test_requirement_is_that_of_the_project():
    requirements = importlib.metadata.requires("colorize-cli")
    stated = [text for text in requirements if Requirement(text).name == "pillow"]
    assert [doctor._requirement("pillow")] == stated
    assert doctor._requirement(ONNXRUNTIME).startswith(f"{ONNXRUNTIME}>=")
    assert doctor._requirement("absent") == "absent"


def test_requirement_ignores_extras(monkeypatch):
    stated = ["pillow-extra>=1", "pillow[more]>=99; extra == 'more'", "pillow>=2 ; python_version > '3'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: stated)
    assert doctor._requirement("pillow") == "pillow>=2"


@pytest.mark.parametrize(
    ("module", "intruder"),
    [("onnxruntime", "onnxruntime-openvino"), ("cv2", "opencv-python"), ("PIL", "Pillow_SIMD")],
)
def test_distributions_with_the_same_files_are_a_problem(models, monkeypatch, tmp_path, module, intruder):
    install(tmp_path, intruder, module)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(inference_cuda, "ask", lambda: None)
    found = examined(models.gray)
    assert problems(found) == {module}
    wanted = doctor.MODULES[module]
    both = sorted([wanted, intruder.lower().replace("_", "-")])
    assert found[module].text == f"{both[0]} and {both[1]} have overwritten each other's files"
    command = f'pip uninstall -y {both[0]} {both[1]} && pip install "{doctor._requirement(wanted)}"'
    assert found[module].mend == command


def test_owners_of_a_distribution_found_twice_are_one(monkeypatch, tmp_path):
    install(tmp_path, "NumPy", "numpy")
    monkeypatch.syspath_prepend(tmp_path)
    finding = finding_of("numpy")
    assert (finding.verdict, finding.text) == (Verdict.OK, "9.9 (numpy)")


def test_module_not_installed_is_a_problem(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "packages_distributions", dict)
    monkeypatch.setitem(sys.modules, "av", None)
    finding = finding_of("av")
    assert (finding.verdict, finding.text) == (Verdict.PROBLEM, "not installed")
    assert finding.mend == f'pip install "{doctor._requirement("av")}"'


def test_module_without_files_is_a_problem(monkeypatch):
    left = types.ModuleType("onnxruntime")
    left.__file__ = None
    monkeypatch.setitem(sys.modules, "onnxruntime", left)
    owners = {"onnxruntime": ["onnxruntime-gpu"]}
    monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: owners)
    finding = finding_of("onnxruntime")
    assert "its files are missing" in finding.text
    assert finding.mend.startswith("pip uninstall -y onnxruntime-gpu && pip install ")


def test_module_not_installed_by_pip_is_a_note(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "packages_distributions", dict)
    finding = finding_of("numpy")
    assert finding.verdict is Verdict.NOTE
    assert np.__file__ in finding.text


def test_opencv_without_desktop_libraries_names_the_headless_package(models, tmp_path):
    (tmp_path / "cv2").mkdir()
    (tmp_path / "cv2" / "__init__.py").write_text(
        "raise ImportError('libGL.so.1: cannot open shared object file: No such file or directory')"
    )
    install(tmp_path, "opencv-python", "cv2")
    code, output = in_a_process(tmp_path, models.gray)
    assert code == 1
    lines = output.splitlines()
    assert lines[0] == "modules:"  # the check itself needs none of them
    (cv2,) = (index for index, line in enumerate(lines) if line.startswith("PROBLEM"))
    assert "libGL.so.1" in lines[cv2]
    assert "opencv-python-headless needs no desktop libraries" in lines[cv2]
    assert "uninstall -y opencv-python opencv-python-headless && " in lines[cv2 + 1]
    assert lines[cv2 + 1].endswith(f'install "{doctor._requirement("opencv-python-headless")}"')
    for subject in ("formats", "model"):
        (line,) = (line for line in lines if line.split()[:2] == ["note", subject])
        assert "not checked; fix the above first" in line
    assert lines[-1] == "1 problem found"


def test_modules_that_need_numpy_are_fixed_after_numpy(models, tmp_path):
    (tmp_path / "numpy.py").write_text("raise ImportError('broken')")
    code, output = in_a_process(tmp_path, models.gray)
    assert code == 1
    lines = output.splitlines()
    found = {line.split()[1]: line for line in lines if line.startswith("PROBLEM")}
    assert "numpy" in found
    assert "fix numpy first" in found["cv2"]
    (mend,) = (line for line in lines if "fix it with" in line)
    assert mend.endswith(f'install "{doctor._requirement("numpy")}"')


def test_broken_pip_metadata_is_a_problem(models, monkeypatch):
    def broken():
        raise KeyError("Name")

    monkeypatch.setattr(importlib.metadata, "packages_distributions", broken)
    monkeypatch.setattr(inference_cuda, "ask", lambda: None)
    found = examined(models.gray)
    assert problems(found) == {"pip"}
    assert "KeyError: 'Name'" in found["pip"].text


def test_program_run_from_source_is_a_problem(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    for name in ("version", "requires", "distribution"):
        monkeypatch.setattr(importlib.metadata, name, absent)
    finding = finding_of("colorize-cli")
    assert finding.verdict is Verdict.PROBLEM
    assert finding.mend == f"pip install {doctor._quoted(Path(doctor.__file__).parents[2])}"
    assert doctor._requirement("pillow") == "pillow"
    assert doctor._reinstall() is None


def test_broken_model_is_a_problem(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "_reinstall", lambda: "would not fix it")
    (tmp_path / "text.onnx").write_text("no model")
    found = examined(tmp_path / "text.onnx")
    assert problems(found) == {"model"}
    assert "not an ONNX file" in found["model"].text
    assert found["model"].mend is None
    assert found["devices"].verdict is Verdict.NOTE
    assert "cpu" not in found


@pytest.mark.parametrize(
    ("origin", "source"),
    [
        (None, "colorize-cli"),
        ({"url": "file:///some where/colorize", "dir_info": {}}, '"file:///some where/colorize"'),
        ({"url": "file:///work", "dir_info": {"editable": True}}, None),
    ],
)
def test_bundled_model_missing_names_the_reinstallation(monkeypatch, origin, source):
    direct_url = None if origin is None else json.dumps(origin)
    monkeypatch.setattr(model, "DEFAULT", Path("absent.onnx"))
    distribution = types.SimpleNamespace(read_text=lambda _: direct_url, version="1.0", requires=[])
    monkeypatch.setattr(importlib.metadata, "distribution", lambda _: distribution)
    finding = finding_of("model")
    assert "lacks its model" in finding.text
    command = f"pip install --force-reinstall --no-deps {source}"
    assert finding.mend == (None if source is None else command)


def test_model_with_nan_output_is_a_problem(tmp_path):
    path = write_model(tmp_path / "nan.onnx", (0, 0), (float("nan"), 0))
    found = examined(path)
    assert problems(found) == {"cpu"}
    assert "not finite" in found["cpu"].text


def test_cuda_without_driver_is_a_note(models, monkeypatch):
    monkeypatch.setattr(inference_cuda, "library", lambda _: None)
    finding = examined(models.gray)["cuda"]
    assert (finding.verdict, finding.mend) == (Verdict.NOTE, None)
    assert "no NVIDIA driver" in finding.text


@pytest.mark.parametrize(("code", "verdict"), [(100, Verdict.NOTE), (803, Verdict.PROBLEM)])
def test_cuda_driver_that_fails_is_explained(models, monkeypatch, code, verdict):
    def explain(_, text):
        text._obj.value = b"the reason"

    cuda = types.SimpleNamespace(cuInit=lambda _: code, cuGetErrorString=explain)
    monkeypatch.setattr(inference_cuda, "library", lambda _: cuda)
    finding = examined(models.gray)["cuda"]
    assert (finding.verdict, finding.mend) == (verdict, None)
    assert f"the reason (CUDA error {code})" in finding.text


def test_cuda_driver_reports_version_and_gpus(monkeypatch):
    def answer(number):
        def set_to(value):
            value._obj.value = number

        return set_to

    def name(text, _, index):
        text.value = f"GPU {index}".encode()

    cuda = types.SimpleNamespace(
        cuInit=lambda _: 0,
        cuDriverGetVersion=answer(12040),
        cuDeviceGetCount=answer(2),
        cuDeviceGetName=name,
    )
    monkeypatch.setattr(inference_cuda, "library", lambda _: cuda)
    assert inference_cuda.ask() == inference_cuda.Driver((12, 4), ("GPU 0", "GPU 1"))


def test_cuda_that_works_is_compared_with_the_cpu(models, gpu, capsys):
    found = examined(models.tinted)
    assert problems(found) == set()
    assert found["driver"].text == "NVIDIA, for CUDA up to 13.0: A GPU"
    assert "ms for 64 x 64 pixels, within 0.00 of the CPU's" in found["cuda"].text
    assert "CUDA 13.0: loaded " in found["libraries"].text
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("off", "verdict"), [(1.5, Verdict.OK), (2.5, Verdict.PROBLEM)])
def test_cuda_with_different_results_is_a_problem(models, gpu, monkeypatch, tmp_path, off, verdict):
    other = write_model(tmp_path / "other.onnx", (0, 0), (0, off))
    monkeypatch.setattr(
        model, "load", lambda path, device, **_: LOAD(other if device == "cuda" else path, "cpu")
    )
    finding = examined(models.gray)["cuda"]
    assert finding.verdict is verdict
    assert f"{off:.1f}" in finding.text


def test_cuda_libraries_missing_are_named(models, gpu, monkeypatch):
    cuda_fails(monkeypatch, DeviceError("CUDA did not load"))
    monkeypatch.setattr(inference_cuda, "library", lambda name: None if "cublas" in name else object())
    found = examined(models.gray)
    assert problems(found) == {"cuda", "libraries"}
    assert "CUDA did not load" in found["cuda"].text
    loaded, missing = found["libraries"].text.split("; not loaded ")
    assert "cudart" in loaded
    assert "cublas" not in loaded
    assert len(missing.split(", ")) == 2
    assert found["libraries"].mend == 'pip install "onnxruntime-gpu[cuda,cudnn]>=1.21.1"'


def test_cuda_libraries_not_needed_are_a_note(models, gpu, monkeypatch):
    monkeypatch.setattr(inference_cuda, "library", lambda name: None if "cufft" in name else object())
    found = examined(models.gray)
    assert (found["cuda"].verdict, found["libraries"].verdict) == (Verdict.OK, Verdict.NOTE)
    assert found["libraries"].mend is None


def test_onnxruntime_without_cuda_names_the_gpu_package(models, gpu, monkeypatch):
    cuda_fails(monkeypatch, DeviceError("built without CUDA"))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(doctor, "_owners", lambda: {"onnxruntime": ("onnxruntime",)})
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "1.0")
    found = examined(models.gray)
    assert problems(found) == {"cuda"}
    command = 'pip uninstall -y onnxruntime && pip install "onnxruntime-gpu[cuda,cudnn]>=1.21.1"'
    assert found["cuda"].mend == command
    monkeypatch.setattr(doctor, "_HAS_GPU_WHEEL", False)
    assert examined(models.gray)["cuda"].verdict is Verdict.NOTE


def test_cuda_driver_too_old_is_a_problem(models, gpu, monkeypatch):
    cuda_fails(monkeypatch, DeviceError("insufficient"))
    monkeypatch.setattr(inference_cuda, "ask", lambda: inference_cuda.Driver((12, 4), ("A GPU",)))
    found = examined(models.gray)
    assert problems(found) == {"cuda"}
    assert "too old for CUDA 13.0" in found["cuda"].text


def test_onnxruntime_too_old_is_a_problem(models, gpu, monkeypatch):
    cuda_fails(monkeypatch, AttributeError("no preload_dlls"))
    monkeypatch.delattr(onnxruntime, "preload_dlls")
    monkeypatch.setattr(onnxruntime, "cuda_version", "")
    found = examined(models.gray)
    assert problems(found) == {"cuda"}
    assert "too old" in found["cuda"].text
    assert found["cuda"].mend.endswith('&& pip install "onnxruntime-gpu[cuda,cudnn]>=1.21.1"')


def test_onnxruntime_damaged_is_a_problem(models, gpu, monkeypatch):
    monkeypatch.setattr(onnxruntime, "preload_dlls", None)
    found = examined(models.gray)
    assert problems(found) == {"cuda"}
    assert "TypeError" in found["cuda"].text
    assert found["machine"].verdict is Verdict.OK


def test_library_names_depend_on_platform_and_version(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    assert inference_cuda.library_names(12) == [
        "libcudart.so.12",
        "libcublasLt.so.12",
        "libcublas.so.12",
        "libcufft.so.11",
        "libcurand.so.10",
        "libcudnn.so.9",
    ]
    monkeypatch.setattr(sys, "platform", "win32")
    assert {"cudart64_13.dll", "cufft64_12.dll", "cudnn64_9.dll"} < set(inference_cuda.library_names(13))


def test_library_returns_none_if_absent():
    assert inference_cuda.library("libabsent.so.1") is None
    if sys.platform == "linux":
        assert isinstance(inference_cuda.library("libc.so.6"), ctypes.CDLL)


def test_format_that_cannot_be_written_is_a_problem(models, monkeypatch):
    Image.init()
    monkeypatch.delitem(Image.SAVE, "WEBP")
    owners = {"PIL": ["pillow"]}
    monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: owners)
    broken, rest = (finding for finding in doctor.examine(models.gray) if finding.subject == "formats")
    assert broken.verdict is Verdict.PROBLEM
    assert broken.text.startswith("WEBP cannot be written and read: ")
    assert broken.mend == f'pip uninstall -y pillow && pip install "{doctor._requirement("pillow")}"'
    others = ", ".join(format_ for format_ in WRITABLE if format_ != "WEBP")
    assert rest.text == f"{others} can be written and read"


def test_formats_that_read_other_pixels_are_a_problem(models, monkeypatch):
    dark = from_image(Image.new("L", (64, 64)))
    monkeypatch.setattr(reader, "read", lambda _, **__: dark)
    findings = [finding for finding in doctor.examine(models.gray) if finding.subject == "formats"]
    assert {finding.verdict for finding in findings} == {Verdict.PROBLEM}
    assert len(findings) == len(WRITABLE)
    assert "L* from the one written" in findings[0].text


def test_formats_error_of_this_program_has_no_mend(models, monkeypatch):
    monkeypatch.setattr(writer, "encode", None)
    monkeypatch.setattr(inference_cuda, "ask", lambda: None)
    found = examined(models.gray)
    assert problems(found) == {"formats"}
    assert "TypeError" in found["formats"].text
    assert found["formats"].mend is None
    assert found["cpu"].verdict is Verdict.OK


def test_memory_is_at_most_that_of_the_machine(models):
    found = re.search(r"memory: ([\d.]+) GiB", finding_of("machine", models.gray).text)
    assert found is not None
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    assert 0 < float(found[1]) <= installed + 0.05


def test_pip_command_is_that_of_this_python(monkeypatch):
    monkeypatch.undo()
    beside = Path(sys.executable).with_name("pip")
    monkeypatch.setattr(shutil, "which", lambda _: str(beside))
    assert doctor._pip() == "pip"
    python = doctor._quoted(sys.executable)
    monkeypatch.setattr(shutil, "which", lambda _: "/elsewhere/pip")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    assert doctor._pip() == f"{python} -m pip"
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert doctor._pip() == f"{python} -m ensurepip && {python} -m pip"


def test_tell_prints_findings_as_lines():
    lines = []
    findings = [
        Finding("a", Verdict.OK, "well"),
        Finding("b", Verdict.NOTE, "so"),
        Finding("c", Verdict.PROBLEM, "broken", "fix c"),
    ]
    assert doctor.tell(iter(findings), lines.append) == 1
    assert lines == [
        "ok       a             well",
        "note     b             so",
        "PROBLEM  c             broken",
        "         fix it with: fix c",
        "1 problem found",
    ]
    assert doctor.tell(findings[:2], lines.append) == 0

import dataclasses
import hashlib
import os
import re
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.external_data_helper import set_external_data

from colorize_cli.core.errors import DeviceError, DeviceMemoryError, ModelError, UsageError
from colorize_cli.inference import model
from colorize_cli.inference.cuda import Driver
from colorize_cli.inference.sessions import Sessions
from tests.helpers.models import METADATA, write_model
from tests.helpers.sessions import FakeSession, has_gpu, on_gpus


def threads_of(network: model.Model) -> int:
    session = network._sessions._idle.get()
    network._sessions._idle.put(session)
    return session.get_session_options().intra_op_num_threads


def test_predict_returns_chroma(models):
    network = model.load(models.tinted, "cpu", threads=1)
    lightness = np.random.default_rng(0).uniform(0, 100, (3, 1, 32, 48)).astype(np.float32)
    ab = network.predict(lightness)
    small = lightness.reshape(3, 16, 2, 24, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(ab[:, 0], 0.4 * small - 20, atol=1e-4)
    np.testing.assert_allclose(ab[:, 1], 30 - 0.3 * small, atol=1e-4)


def test_load_returns_the_info_of_the_file(models):
    network = model.load(models.gray, "cpu")
    assert network.device == "cpu"
    assert (network.info.name, network.info.working_size, network.info.multiple_of) == ("stand-in", 64, 16)


def test_predict_refuses_sides_that_are_not_multiples(models):
    with pytest.raises(ValueError, match="multiples of 16"):
        model.load(models.gray, "cpu").predict(np.zeros((1, 1, 40, 32), np.float32))


def test_predict_refuses_nan_output(tmp_path):
    path = write_model(tmp_path / "nan.onnx", (0, 0), (float("nan"), 0))
    with pytest.raises(ModelError, match="not finite"):
        model.load(path, "cpu").predict(np.zeros((1, 1, 32, 32), np.float32))


@pytest.mark.skipif(has_gpu(), reason="there is a GPU")
def test_load_on_cuda_without_gpu_fails_and_auto_gives_the_reason(models):
    with pytest.raises(DeviceError, match="driver"):
        model.load(models.gray, "cuda")
    network = model.load(models.gray, "auto")
    assert network.device == "cpu"
    assert "driver" in network.reason


def test_load_of_a_missing_file_or_device_is_an_error(models, tmp_path):
    with pytest.raises(ModelError, match=r"absent\.onnx"):
        model.load(tmp_path / "absent.onnx", "cpu")
    with pytest.raises(UsageError, match="tpu"):
        model.load(models.gray, "tpu")


def test_load_without_the_bundled_model_is_an_error(monkeypatch):
    monkeypatch.setattr(model, "DEFAULT", Path("absent.onnx"))
    with pytest.raises(ModelError, match="lacks its model"):
        model.load(None, "cpu")


def test_load_of_other_files_is_refused(tmp_path):
    path = tmp_path / "text.onnx"
    path.write_text("no model")
    with pytest.raises(ModelError, match="not an ONNX file"):
        model.load(path, "cpu")
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "other",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4, 512, 512])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, 512, 512])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    with pytest.raises(ModelError, match=r"x tensor\(float\) \(n, 4, 512, 512\).*native"):
        model.load(path, "cpu")


@pytest.mark.parametrize("value", ["", "-1", "0", "many", "1.5", "1" * 5000, None])
def test_load_of_broken_metadata_is_refused(tmp_path, value):
    metadata = dict(METADATA)
    if value is None:
        del metadata["colorize.working_size"]
    else:
        metadata["colorize.working_size"] = value
    path = write_model(tmp_path / "m.onnx", (0, 0), (0, 0), metadata)
    with pytest.raises(ModelError, match=r"colorize\.working_size"):
        model.load(path, "cpu")


def test_load_of_another_contract_version_is_refused(tmp_path):
    path = write_model(tmp_path / "m.onnx", (0, 0), (0, 0), METADATA | {"colorize.contract": "2"})
    with pytest.raises(ModelError, match="contract '2'"):
        model.load(path, "cpu")


def test_predict_out_of_memory_halves_batches_permanently(models):
    session = FakeSession(3 * 64 * 64)
    network = on_gpus(models, session)
    lightness = np.random.default_rng(0).uniform(0, 100, (8, 1, 64, 64)).astype(np.float32)
    ab = network.predict(lightness)
    np.testing.assert_allclose(ab[:, 1], lightness[:, 0, ::2, ::2] / 5, rtol=1e-6)
    assert [shape[0] for shape in session.batches] == [8, 4, 2, 2, 2, 2]
    assert network.batch_limit == 2
    session.batches.clear()
    network.predict(lightness[:5])
    assert [shape[0] for shape in session.batches] == [2, 2, 1]


def test_predict_of_one_picture_out_of_memory_is_an_error(models):
    with pytest.raises(DeviceMemoryError, match="out of memory"):
        on_gpus(models, FakeSession(100)).predict(np.zeros((4, 1, 64, 64), np.float32))
    with pytest.raises(DeviceError, match="illegal instruction") as caught:
        on_gpus(models, FakeSession(100, "illegal instruction")).predict(np.zeros((1, 1, 64, 64), np.float32))
    assert not isinstance(caught.value, DeviceMemoryError)


def test_predict_alternates_between_gpus(models):
    sessions = FakeSession(10**9), FakeSession(10**9)
    network = on_gpus(models, *sessions)
    assert network.parallel == 2
    for _ in range(6):
        network.predict(np.zeros((1, 1, 64, 64), np.float32))
    assert [len(session.batches) for session in sessions] == [3, 3]


@pytest.mark.parametrize(
    ("device", "gpus"),
    [("auto", None), ("cpu", None), ("cuda", [0]), ("cuda:1", [1]), ("cuda:2,0", [0, 2])],
)
def test_gpus_of_parses_device_names(device, gpus):
    assert model.gpus_of(device) == gpus


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "cuda:1,", "cpu:0", "auto:all"])
def test_gpus_of_an_unknown_device_is_refused(device):
    with pytest.raises(UsageError, match="no such device"):
        model.gpus_of(device)


def test_gpus_of_cuda_all_are_all_gpus(monkeypatch):
    monkeypatch.setattr(model.cuda, "ask", lambda: Driver((12, 4), ("one", "two", "three")))
    assert model.gpus_of("cuda:all") == [0, 1, 2]


def test_load_with_parallel_calls_divides_the_threads(models):
    alone = model.load(models.tinted, "cpu", threads=4)
    network = model.load(models.tinted, "cpu", threads=4, parallel=3)
    assert (alone.parallel, alone.batch_size) == (1, 8)
    assert (network.parallel, network.batch_size) == (3, 1)
    assert [threads_of(loaded) for loaded in (alone, network)] == [4, 1]
    lightness = np.random.default_rng(1).uniform(0, 100, (40, 1, 1, 64, 64)).astype(np.float32)
    with ThreadPoolExecutor(6) as pool:
        for given, ab in zip(lightness, pool.map(network.predict, lightness), strict=True):
            np.testing.assert_array_equal(ab, alone.predict(given))


class Crowded(FakeSession):
    """Memory for a number of concurrent calls."""

    def __init__(self, calls: int):
        super().__init__(10**9)
        self.calls, self.inside, self.lock = calls, 0, threading.Lock()

    def run(self, *call) -> list[np.ndarray]:
        with self.lock:
            self.inside += 1
        try:
            time.sleep(0.01)
            if self.inside > self.calls:
                raise RuntimeError("Failed to allocate memory for requested buffer of size 1")
            return super().run(*call)
        finally:
            with self.lock:
                self.inside -= 1


def test_predict_out_of_memory_in_parallel_is_repeated_alone(models):
    loaded = model.load(models.tinted, "cpu", threads=6, parallel=6)
    lightness = np.random.default_rng(2).uniform(0, 100, (30, 1, 1, 64, 64)).astype(np.float32)
    for calls in (1, 2, 5):
        network = dataclasses.replace(loaded, _sessions=Sessions([Crowded(calls)], 6))
        with ThreadPoolExecutor(12) as pool:
            for given, ab in zip(lightness, pool.map(network.predict, lightness), strict=True):
                np.testing.assert_allclose(ab[:, 0], given[:, 0, ::2, ::2] / 5, rtol=1e-6)
    network = dataclasses.replace(loaded, _sessions=Sessions([Crowded(0)], 6))
    with pytest.raises(DeviceMemoryError, match="allocate"):
        network.predict(lightness[0])


def test_digest_is_that_of_the_current_content(tmp_path):
    path = tmp_path / "m.onnx"
    for content in (b"one", b"another"):
        path.write_bytes(content)
        assert model.digest(path) == hashlib.sha256(content).digest()
    path.unlink()
    with pytest.raises(ModelError, match=r"cannot read the model .*m\.onnx"):
        model.digest(path)
    with pytest.raises(ModelError, match=r"cannot read the model .*m\.onnx"):
        model.load(path, "cpu", precision="int8")


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("working_size", "20000", "working size 20000 is not between 16 and 4096"),
        ("multiple_of", "999999", "multiples of 999999; at most 1024"),
    ],
)
def test_load_of_metadata_out_of_bounds_is_refused(tmp_path, field, value, reason):
    path = write_model(tmp_path / "m.onnx", (0, 0), (0, 0), METADATA | {f"colorize.{field}": value})
    with pytest.raises(ModelError, match=reason):
        model.load(path, "cpu")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_load_of_an_unsupported_file_names_it(models, tmp_path, precision):
    (tmp_path / "m.onnx").write_bytes(models.tinted.read_bytes())
    bad = tmp_path / ("m.onnx" if precision == "fp32" else "m-int8.onnx")
    bad.write_bytes(b"junk")
    reason = f"cannot use the model {bad}: not an ONNX file that can be loaded: "
    with pytest.raises(ModelError, match=f"^{re.escape(reason)}"):
        model.load(tmp_path / "m.onnx", "cpu", precision=precision)


def test_load_of_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"cannot read the model .*m\.onnx: not a regular file"):
        model.load(tmp_path / "m.onnx", "cpu")


def test_load_of_more_bytes_than_the_format_allows_is_refused_without_reading(tmp_path):
    (tmp_path / "m.onnx").touch()
    os.truncate(tmp_path / "m.onnx", (2 << 30) + 1)
    tracemalloc.start()
    with pytest.raises(ModelError, match=r"the model .*m\.onnx: it is larger than 2 GiB"):
        model.load(tmp_path / "m.onnx", "cpu")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("first", ["location", "offset"])
def test_load_of_external_data_is_refused_and_reads_nothing(models, tmp_path, monkeypatch, first):
    found = onnx.load(models.tinted)
    weights = found.graph.initializer[0]
    weights.raw_data = np.array(weights.float_data, np.float32).tobytes()
    weights.ClearField("float_data")
    set_external_data(weights, "weights.bin", offset=0, length=8)
    weights.ClearField("raw_data")
    entries = sorted(weights.external_data, key=lambda entry: entry.key != first)
    weights.ClearField("external_data")
    weights.external_data.extend(entries)
    (tmp_path / "weights.bin").write_bytes(np.ones(2, np.float32).tobytes())
    (tmp_path / "m.onnx").write_bytes(found.SerializeToString())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="external data") as raised:
        model.load(tmp_path / "m.onnx", "cpu")
    assert "\n" not in str(raised.value)

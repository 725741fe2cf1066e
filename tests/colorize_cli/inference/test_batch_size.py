import dataclasses
import json

import pytest

from colorize_cli.core.settings import Settings
from colorize_cli.engine.images import Images
from colorize_cli.engine.outputs import Outputs
from colorize_cli.engine.session import Session
from colorize_cli.guidance import Guidance
from colorize_cli.inference import batch_size, model
from tests.helpers.sessions import FakeSession, on_gpus


class Clock:
    """Clock that advances by the duration of the session's last run."""

    def __init__(self, session: FakeSession, seconds) -> None:
        self.session, self.seconds = session, seconds
        self.now, self.seen = 0.0, 0

    def __call__(self) -> float:
        for shape in self.session.batches[self.seen :]:
            self.now += self.seconds(shape[0])
        self.seen = len(self.session.batches)
        return self.now


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "colorize" / "batches.json"


def found(models, seconds, pixels=10**9) -> tuple[int, FakeSession]:
    session = FakeSession(pixels)
    return batch_size.batch_size(on_gpus(models, session), None, Clock(session, seconds)), session


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (lambda _: 1.0, 64),  # the time of a call does not depend on its size
        (lambda n: n, 8),  # no gain
        (lambda n: 16 + max(0, n - 32), 32),  # gains up to 32
    ],
)
def test_batch_size_doubles_while_throughput_rises(models, seconds, expected):
    assert found(models, seconds)[0] == expected


def test_batch_size_is_limited_by_memory(models):
    size, session = found(models, lambda _: 1.0, pixels=20 * 64 * 96)
    assert size == 16
    assert max(shape[0] for shape in session.batches) == 32


def test_batch_size_is_cached_by_model_size_and_gpus(models, cache):
    assert found(models, lambda _: 1.0)[0] == 64
    size, session = found(models, lambda n: n)
    assert (size, session.batches) == (64, [])
    assert list(json.loads(cache.read_text()).values()) == [64]
    session = FakeSession(10**9)
    network = on_gpus(models, session)
    batch_size.batch_size(network, 128, Clock(session, lambda n: n))
    assert session.batches[0][2:] == (128, 192)
    assert sorted(json.loads(cache.read_text()).values()) == [8, 64]


@pytest.mark.parametrize("text", ["", "[]", '{"a": "b"}', "\x00"])
def test_batch_size_cache_that_is_unreadable_is_replaced(models, cache, text):
    cache.parent.mkdir(parents=True)
    cache.write_text(text)
    assert found(models, lambda n: n)[0] == 8
    assert 8 in json.loads(cache.read_text()).values()


def test_batch_size_works_without_a_cache(models, cache):
    cache.parent.parent.write_text("a file")
    assert found(models, lambda n: n)[0] == 8


def test_batch_size_on_the_cpu_is_not_measured(models, cache):
    loaded = model.load(models.tinted, "cpu")
    never = dataclasses.replace(loaded, _sessions=None)
    assert batch_size.batch_size(never, None) == 8
    assert not cache.exists()


@pytest.mark.parametrize(("asked", "used"), [(None, 3), (5, 5)])
def test_batch_size_measured_is_used_unless_set(models, tmp_path, monkeypatch, asked, used):
    network = on_gpus(models, FakeSession(10**9))
    monkeypatch.setattr(model, "load", lambda *_: network)
    monkeypatch.setattr(batch_size, "batch_size", lambda *_: 3)
    settings = Settings(device="cuda", batch_size=asked)
    opened = Session(tmp_path, settings, Guidance()).open()
    outputs = Outputs(tmp_path, settings, Guidance(), read_only=True)
    stages = Images(opened, settings, Guidance(), outputs).pipeline().stages
    assert [stage.batch for stage in stages if stage.batch] == [used]

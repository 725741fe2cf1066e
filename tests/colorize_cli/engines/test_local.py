"""The workshop, and what it asks of the model."""

from pathlib import Path

import pytest

from colorize_cli.engines import local
from colorize_cli.engines.local import Workshop
from colorize_cli.jobs import Job, Settings
from colorize_cli.steering import Steering


@pytest.mark.parametrize(
    ("batch_size", "cores", "parallel"),
    [
        (None, 1, 1),
        (None, 2, 2),
        (None, 8, 8),
        (None, 9, 4),
        (None, 12, 6),
        (None, 64, 8),
        (2, 8, 4),
        (8, 8, 1),
        (100, 8, 1),
    ],
)
def test_many_pictures_share_the_cores_and_no_more_memory_than_a_batch(
    models, tmp_path, batch_size, cores, parallel
):
    settings = Settings(model=models.tinted, device="cpu", batch_size=batch_size)
    for many in (True, False):
        shop = Workshop(tmp_path, settings, Steering(), cores=cores, many=many)
        network = shop.open()
        assert network.parallel == (parallel if many else 1)
        assert (batch_size or network.batch_size) * network.parallel <= max(8, batch_size or 1)
        assert shop.open() is network
        shop.close()


@pytest.mark.parametrize(
    ("names", "expected"),
    [(["a.jpg"], False), (["a.jpg"] * 4, True), (["a.jpg"] * 9, True), (["a.jpg"] * 9 + ["b.mp4"], False)],
)
def test_few_pictures_and_films_have_all_cores_one_at_a_time(monkeypatch, names, expected):
    monkeypatch.setattr(local, "available_cores", lambda: 4)
    assert local.are_many([Job(Path(name), Path("out", name)) for name in names]) is expected

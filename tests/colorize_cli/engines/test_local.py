"""The workshop, and what it asks of the model."""

import pytest

from colorize_cli.engines import local
from colorize_cli.engines.local import Workshop
from colorize_cli.jobs import Job, Settings, Status
from colorize_cli.steering import Steering


@pytest.mark.parametrize(("pictures", "parallel"), [(1, 1), (3, 1), (4, 4), (9, 4)])
def test_many_pictures_are_seen_in_parallel_and_few_as_soon_as_can_be(
    models, make_folder, tmp_path, monkeypatch, pictures, parallel
):
    opened = []

    class Photos(local.Photos):
        def __init__(self, network, *rest):
            opened.append(network)
            super().__init__(network, *rest)

    monkeypatch.setattr(local, "Photos", Photos)
    source = make_folder(tmp_path / "in", pictures)
    shop = Workshop(tmp_path, Settings(model=models.tinted, device="cpu", workers=2), Steering(), cores=4)
    todo = [Job(path, tmp_path / "out" / path.name) for path in sorted(source.rglob("*.*"))]
    assert [outcome.status for outcome in shop.pictures(todo)] == [Status.DONE] * pictures
    assert [network.parallel for network in opened] == [parallel]
    # Whoever gives them one by one has many.
    again = [Job(job.source, job.destination.with_stem("again")) for job in todo]
    assert all(outcome.status is Status.DONE for outcome in shop.pictures(iter(again)))
    assert opened[-1].parallel == 4
    shop.close()


def test_calls_at_the_same_time_are_eight_at_the_most(models, tmp_path):
    shop = Workshop(tmp_path, Settings(model=models.tinted, device="cpu"), Steering(), cores=20)
    assert [shop.open(parallel=which).parallel for which in (True, False)] == [8, 1]
    shop.close()


def test_a_device_is_announced_once(models, tmp_path):
    lines: list[str] = []
    shop = Workshop(tmp_path, Settings(model=models.tinted), Steering(), lines.append, cores=2)
    assert [shop.open(parallel=which).parallel for which in (True, False, True)] == [2, 1, 2]
    assert shop.open() is shop.open()
    assert len(lines) == 1
    shop.close()

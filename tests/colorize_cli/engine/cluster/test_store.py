"""The engine for clusters with files in a store: two nodes, and one of them is killed."""

import tempfile
import time
from collections.abc import Iterator

import pytest

from tests.helpers.clusters import Nodes, started, wait_for

pytestmark = pytest.mark.usefixtures("environment")
COUNT = 120


@pytest.fixture
def store_nodes(environment, tmp_path) -> Iterator[Nodes]:
    """A cluster whose processes have the address of the store and its credentials."""
    (tmp_path / "tmp" / "ray").mkdir()  # where Ray records the cluster, by TMPDIR
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder:
        found = Nodes(folder)
        yield found
        found.end()


def test_run_from_store_to_store_survives_a_killed_node_and_is_not_repeated(
    store_nodes, models, local, bucket, server, tmp_path
):
    source, expected = local(COUNT)
    bucket.fill(source, "in")
    bucket.put("in/text.png", b"no picture")
    second = store_nodes.add()
    server.rule = lambda _, path, __: (lambda: time.sleep(0.05)) if "/in/" in path else None
    arguments = (f"{bucket.url}/in", f"{bucket.url}/out", models.tinted, "--address", store_nodes.address)
    running = started(*arguments, env=store_nodes.environment)
    begun = lambda: len(bucket.contents("out")) > 20 and len(store_nodes.actors()) == 2  # noqa: E731
    wait_for(lambda: begun() or running.poll() is not None, 150)
    assert running.poll() is None, running.communicate()
    store_nodes.remove(second)
    assert len(bucket.contents("out")) < COUNT
    out, err = running.communicate(timeout=180)
    assert (running.returncode, out) == (1, ""), err
    assert "a worker ended unexpectedly; its unfinished files are done again" in err
    assert f"{COUNT} done, 0 skipped, 1 failed" in err
    assert f"{bucket.url}/in/text.png: " in err
    assert "staged" not in err
    assert bucket.contents("out") == expected
    assert all(key.endswith(".jsonl") for key in bucket.keys("out/.colorize/"))
    bucket.delete("in/text.png")
    running = started(*arguments, env=store_nodes.environment)
    out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (0, ""), err
    assert f"0 done, {COUNT} skipped ({COUNT} up to date), 0 failed" in err

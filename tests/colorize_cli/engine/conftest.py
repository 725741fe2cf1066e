"""A server with the S3 protocol, and a cluster of this machine alone, shared by the tests that need one.

Tests that start Ray run only with `pytest -m heavy`.
"""

from collections.abc import Iterator

import pytest

from tests.helpers.stores import _server, bucket, colorize, environment, hasty, local, server

__all__ = ["_server", "bucket", "colorize", "environment", "hasty", "local", "server"]


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    from colorize_cli.engine.cluster.connect import joined

    with joined(None):
        yield


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if {"cluster", "nodes", "store_nodes", "many"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.heavy)

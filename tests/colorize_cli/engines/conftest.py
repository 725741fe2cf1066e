"""A cluster of this machine alone, which the tests that need one share."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    from colorize_cli.engines.ray.cluster import joined

    with joined(None):
        yield

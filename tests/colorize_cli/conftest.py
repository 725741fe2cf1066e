import errno
import os

import pytest

from tests.helpers.pages import Browser


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("chromium")) as started:
        yield started


@pytest.fixture
def locked(monkeypatch):
    """Makes directories named `locked` unreadable, for root too."""
    scandir = os.scandir

    def refusing(path="."):
        if os.path.basename(path) == "locked":  # noqa: PTH119
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)

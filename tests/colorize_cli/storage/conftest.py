"""Fixtures of a server with the S3 protocol, for tests that use its `environment`."""

from tests.helpers.stores import _server, bucket, colorize, environment, hasty, local, server

__all__ = ["_server", "bucket", "colorize", "environment", "hasty", "local", "server"]

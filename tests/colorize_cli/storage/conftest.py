"""The fixtures of a server that speaks S3, for tests that ask for its `environment`."""

from tests.helpers.stores import _server, bucket, colorize, environment, hasty, local, server

__all__ = ["_server", "bucket", "colorize", "environment", "hasty", "local", "server"]

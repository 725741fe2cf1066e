"""The fixtures of a server that speaks S3, for tests that ask for its `environment`."""

from tests.colorize_cli.stores import _server, bucket, colour, environment, hasty, local, server

__all__ = ["_server", "bucket", "colour", "environment", "hasty", "local", "server"]

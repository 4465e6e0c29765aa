"""The `ml-platform` command."""

from ml_platform.cli.app import app, main

__all__ = ["app", "main"]

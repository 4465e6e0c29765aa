"""The prediction service over HTTP."""

from ml_platform.serving.http.app import build_app

__all__ = ["build_app"]

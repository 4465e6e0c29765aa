"""The prediction service over HTTP."""

from ml_platform.serving.http.app import create_app, serve

__all__ = ["create_app", "serve"]

"""The pages that people look at: an application that `ml-platform reports` serves."""

from ml_platform.web.app import build_app, serve_pages

__all__ = ["build_app", "serve_pages"]

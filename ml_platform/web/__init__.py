"""The pages that people look at: an application that `ml-platform pages` serves."""

from ml_platform.web.app import Pages, build_app, serve_pages

__all__ = ["Pages", "build_app", "serve_pages"]

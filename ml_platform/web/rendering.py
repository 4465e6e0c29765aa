"""Pages as HTML, from the templates beside this module."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import jinja2

from ml_platform.html import page_headers, page_templates


@cache
def _templates() -> jinja2.Environment:
    return page_templates("ml_platform.web")


@cache
def _style() -> str:
    return _templates().get_template("style.css").render()


def render(template: str, values: Mapping[str, Any]) -> str:
    """The HTML of a page; style is within it."""
    return _templates().get_template(template).render(style=_style(), **values)


@cache
def headers() -> Mapping[str, str]:
    """Headers of every page."""
    return {"Cache-Control": "no-cache", **page_headers(_style(), forms=True)}

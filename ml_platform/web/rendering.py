"""Pages as HTML, from the templates beside this module."""

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from typing import Any

import jinja2

STYLE = "style.css"


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("ml_platform.web"),
        autoescape=lambda name: name is not None and name.endswith(".html"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


@cache
def _style() -> str:
    return _environment().get_template(STYLE).render()


def render(template: str, values: Mapping[str, Any]) -> str:
    """The HTML of a page; style is within it."""
    return _environment().get_template(template).render(style=_style(), **values)


HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'; style-src 'sha256-"
        f"{base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()}'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Of every page: no script runs, nothing is fetched from elsewhere."""

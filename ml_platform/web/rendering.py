"""Pages as HTML, from the templates beside this module."""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup

from ml_platform.html import page_headers, page_templates

FIRST_PART = Markup("<!-- first part -->")
"""Ends the part of a page that is sent at once."""


@cache
def _templates() -> jinja2.Environment:
    return page_templates("ml_platform.web")


@cache
def _style() -> str:
    return _templates().get_template("style.css").render()


def render(template: str, values: Mapping[str, Any]) -> str:
    """The HTML of a page; style is within it."""
    return _templates().get_template(template).render(style=_style(), **values)


def render_in_parts(template: str, values: Mapping[str, Any]) -> Iterator[str]:
    """As `render`, in two parts: what stands before `first_part` in the template, and the rest.

    The first is there before anything of the rest is looked up, where values are looked up when the
    template asks for them.
    """
    made = _templates().get_template(template)
    kept: list[str] = []
    for piece in made.generate(style=_style(), first_part=FIRST_PART, **values):
        if piece == FIRST_PART:
            yield "".join(kept)
            kept = []
        else:
            kept.append(piece)
    yield "".join(kept)


@cache
def headers() -> Mapping[str, str]:
    """Headers of every page."""
    return {"Cache-Control": "no-cache", **page_headers(_style(), forms=True)}

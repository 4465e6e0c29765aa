"""Pages as HTML, from the templates beside this module."""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import takewhile
from typing import Any

import jinja2
from markupsafe import Markup

from ml_platform.errors import PlatformError
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


def render_in_parts(
    template: str, known: Mapping[str, Any], look: Callable[[], Mapping[str, Any]]
) -> Iterator[str]:
    """The HTML of a page in two parts: what stands before `first_part` in the template, then all.

    known: the values that the first part needs; look: finds the others. What is wrong with those is
    said in the page, whose status has been sent by then.
    """
    yield _first_part(template, known)
    try:
        values = {**known, **look()}
    except PlatformError as error:
        yield render("not_shown.html", {"said": str(error)})
        return
    made = _templates().get_template(template)
    yield made.render(style=_style(), first_part=FIRST_PART, **values).partition(FIRST_PART)[2]


def _first_part(template: str, known: Mapping[str, Any]) -> str:
    made = _templates().get_template(template)
    pieces = made.generate(style=_style(), first_part=FIRST_PART, **known)
    return "".join(takewhile(lambda piece: piece != FIRST_PART, pieces))


@cache
def headers() -> Mapping[str, str]:
    """Headers of every page."""
    return {"Cache-Control": "no-cache", **page_headers(_style(), forms=True)}

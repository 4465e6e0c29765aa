"""HTML pages without a script: templates, a style that they share, headers for browsers."""

import base64
import hashlib
from collections.abc import Mapping

import jinja2


def page_templates(package: str) -> jinja2.Environment:
    """Templates in the folder `templates` of a package, and `base.css`, which all pages share."""
    return jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader(package), jinja2.PackageLoader("ml_platform.html")]
        ),
        autoescape=lambda name: name is not None and name.endswith(".html"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def page_headers(style: str, *, forms: bool = False) -> Mapping[str, str]:
    """Headers of a page whose only style is this one: no script, nothing from elsewhere.

    forms: whether it may send forms to its own address.
    """
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    allowed = "self" if forms else "none"
    return {
        "Content-Security-Policy": (
            f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; "
            f"form-action '{allowed}'; frame-ancestors 'none'"
        ),
        # With `no-referrer`, browsers do not say which page a form is from.
        "Referrer-Policy": "same-origin" if forms else "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }

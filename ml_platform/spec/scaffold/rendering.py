"""Files that are written from templates, which lie beside this module."""

from collections.abc import Mapping
from importlib.resources import as_file, files
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ml_platform.spec.scaffold.draft import identifier, one_line, scalar

TEMPLATE = ".jinja"
"""Ends the name of a file that tools would otherwise take for one of the platform's own."""


def render(folder: str, values: Mapping[str, Any]) -> dict[str, str]:
    """Texts of all files of a folder of templates, by their paths below it."""
    with as_file(files(__package__) / folder) as templates:
        environment = Environment(
            loader=FileSystemLoader(templates),
            undefined=StrictUndefined,
            keep_trailing_newline=True,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters |= {"identifier": identifier, "one_line": one_line, "scalar": scalar}
        return {
            name.removesuffix(TEMPLATE): environment.get_template(name).render(values)
            for name in sorted(environment.list_templates())
        }

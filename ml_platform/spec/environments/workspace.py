"""The code locations of use cases with environments of their own, for Dagster."""

import os
from collections.abc import Iterable
from pathlib import Path

import yaml

from ml_platform.settings import Settings
from ml_platform.spec.environments.own import Environment
from ml_platform.spec.environments.platform import ROOT, is_checkout

WORKSPACE = "workspace.yaml"
"""Below the folder of environments: it names interpreters of one machine, so git ignores it."""
HEAD = """\
# Written by `ml-platform environment`: one code location for each use case with an environment of
# its own. Dagster takes it beside the workspace.yaml of the project: -w workspace.yaml -w {file}
"""


def write_workspace(settings: Settings, environments: Iterable[Environment]) -> Path | None:
    """Write the code locations of the environments that have been made; the file.

    Where there are none, the file is removed and None returned.
    """
    file = settings.environments.absolute() / WORKSPACE
    # `ml-platform init` writes it beside the use cases.
    project = ROOT if is_checkout() else settings.use_cases.absolute().parent
    entries = [_entry(each, project) for each in environments if each.state != "missing"]
    if not entries:
        file.unlink(missing_ok=True)
        return None
    file.parent.mkdir(parents=True, exist_ok=True)
    text = HEAD.format(file=os.path.relpath(file)) + yaml.safe_dump(
        {"load_from": entries}, sort_keys=False
    )
    unfinished = file.with_name(f".{WORKSPACE}.unfinished")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(file)
    return file


def location_of(use_case: str) -> str:
    """Name of its code location; it comes before one that keeps an older version, `…-kept`."""
    return f"ml-platform-{use_case}"


def _entry(environment: Environment, project: Path) -> dict[str, dict[str, str]]:
    return {
        "python_module": {
            "module_name": "definitions",
            "working_directory": str(project),
            "location_name": location_of(environment.use_case),
            "executable_path": str(environment.python),
        }
    }

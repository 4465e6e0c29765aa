"""A project: the folder that a team's use cases live in, where the platform is a package."""

import json
import platform
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

from ml_platform.errors import Location, SpecError
from ml_platform.spec.scaffold.rendering import render

EXTRAS = ("dagster", "serve", "monitoring")
PACKAGE = "ml-platform"


@dataclass(frozen=True)
class ProjectFiles:
    """Files of a project, as paths below its folder, in order of their names."""

    written: tuple[Path, ...]
    kept: tuple[Path, ...]
    """They were there before."""


def write_project(folder: Path) -> ProjectFiles:
    """Write what a project needs beside its use cases; files that are there are left as they are.

    Raises SpecError where a file cannot be written.
    """
    said = {
        "name": folder.absolute().name,
        "requirement": _requirement(),
        "python": ".".join(platform.python_version_tuple()[:2]),
    }
    written: list[Path] = []
    kept: list[Path] = []
    for name, text in render("project_files", said).items():
        (written if _write_new(folder / name, text) else kept).append(Path(name))
    return ProjectFiles(tuple(written), tuple(kept))


def _write_new(file: Path, text: str) -> bool:
    """Whether it was not there before."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError:
        if not file.is_file():
            raise SpecError(Location(file), "", "is there and not a file") from None
        return False
    except OSError as error:
        raise SpecError(Location(file), "", f"cannot be written: {error.strerror}") from None
    return True


def _requirement() -> str:
    """This version of the platform, from where it was installed from."""
    installed = distribution(PACKAGE)
    wanted = f"{PACKAGE}[{','.join(EXTRAS)}]"
    # ProjectFiles by installers where a package does not come from an index.
    direct = json.loads(installed.read_text("direct_url.json") or "{}")
    if "url" not in direct:
        return f"{wanted}=={installed.version}"
    if direct.get("dir_info", {}).get("editable"):
        return f"-e {direct['url'].removeprefix('file://')}[{','.join(EXTRAS)}]"
    return f"{wanted} @ {direct['url']}"

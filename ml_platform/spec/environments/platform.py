"""What environments of use cases start from: the platform's own, of a checkout or of a wheel."""

import sysconfig
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[3]
"""The checkout that holds the platform, where it is in one."""
BASE = Path("requirements", "base.txt")
PROJECT = "pyproject.toml"
NAME = "ml-platform"
WITHOUT = ("dev", "spark")
"""Extras that environments of use cases have only where they ask for them."""
LINK = "ml-platform.pth"


@dataclass(frozen=True)
class PlatformEnvironment:
    """The platform's environment, as far as others are made from it."""

    pins: str
    """A requirements file with the version of each package."""
    is_hashed: bool
    asked: tuple[str, ...]
    """What the platform itself asks for, with its extras."""
    link: Callable[[Path], None]
    """Lets the environment in a folder import the platform's code."""


def the_platform() -> PlatformEnvironment:
    """The one that runs this."""
    return _checkout() if is_checkout() else _installed()


def is_checkout() -> bool:
    """Whether the platform's code is run from a checkout, not from a wheel."""
    return (ROOT / BASE).is_file()


def _checkout() -> PlatformEnvironment:
    project = tomllib.loads((ROOT / PROJECT).read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"]]
    asked += [line for name in extras if name not in WITHOUT for line in extras[name]]
    pins = (ROOT / BASE).read_text(encoding="utf-8")
    return PlatformEnvironment(pins, True, tuple(asked), lambda folder: _write_link(folder, ROOT))


@cache
def _installed() -> PlatformEnvironment:
    """By what is installed: the extras are those whose packages are there.

    Kept, since reading the metadata of all packages takes a third of a second, and the state of
    each environment asks for it.
    """
    ours = distribution(NAME)
    there = {canonicalize_name(each.name): each.version for each in distributions()}
    lines = [Requirement(line) for line in ours.requires or ()]
    extras = [
        extra
        for extra in ours.metadata.get_all("Provides-Extra") or ()
        if extra not in WITHOUT
        and all(canonicalize_name(each.name) in there for each in _of_extra(lines, extra))
    ]
    asked = {_plain(each) for extra in ("", *extras) for each in _of_extra(lines, extra)}
    pins = "".join(f"{name}=={there[name]}\n" for name in sorted(there.keys() - {NAME}))
    return PlatformEnvironment(
        pins, False, tuple(sorted(asked)), lambda folder: _link_packages(folder, ours)
    )


def _of_extra(lines: Iterable[Requirement], extra: str) -> list[Requirement]:
    """Requirements of an extra alone, or those of no extra."""
    return [
        each
        for each in lines
        if (each.marker is None or each.marker.evaluate({"extra": extra}))
        and (not extra or (each.marker is not None and not each.marker.evaluate({"extra": ""})))
    ]


def _plain(requirement: Requirement) -> str:
    """Without its marker, which holds here."""
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"{requirement.name}{extras}{requirement.specifier}"


def _link_packages(folder: Path, ours: Distribution) -> None:
    """Link the packages of the wheel alone: beside them lies all that the platform has."""
    beside = folder / NAME
    beside.mkdir(exist_ok=True)
    for name in {Path(file).parts[0] for file in ours.files or ()} - {"..", "__pycache__"}:
        link = beside / name
        link.unlink(missing_ok=True)
        link.symlink_to(str(ours.locate_file(name)))
    _write_link(folder, beside)


def _write_link(folder: Path, code: Path) -> None:
    packages = sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)})
    (Path(packages) / LINK).write_text(f"{code}\n", encoding="utf-8")

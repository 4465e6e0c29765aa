"""Environments that hold what some extras of this project bring, and nothing else.

They are made of links to what is installed here, so that they need no network.
"""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def closure(*extras: str) -> dict[str, Distribution]:
    """What an installation of this project with extras brings, by name, itself left out."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"]]
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    wanted = list(_needed(lines, ""))
    while wanted:
        name, extra = wanted.pop()
        if (name, extra) not in seen:
            seen.add((name, extra))
            found[name] = distribution(name)
            wanted += _needed(found[name].requires or (), extra)
    return found


def _needed(lines: Iterable[str], extra: str) -> Iterator[tuple[str, str]]:
    """Names and extras of the packages that requirements of an extra, or of none, ask for."""
    for requirement in map(Requirement, lines):
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            for each in ("", *requirement.extras):
                yield canonicalize_name(requirement.name), each


def size(distributions: Iterable[Distribution]) -> int:
    """Bytes of their files; those that several bring count once."""
    return sum(file.stat().st_size for _, file in set(_files(distributions)))


def build_wheel(folder: Path) -> Path:
    """The wheel of this checkout."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(folder: Path, wheel: Path, *extras: str) -> Path:
    """Make a virtual environment that holds the wheel and what its extras bring; its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    packages = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages /= "site-packages"
    made = set()
    for relative, file in set(_files(closure(*extras).values())):
        link = packages / relative
        if link.parent not in made:
            link.parent.mkdir(parents=True, exist_ok=True)
            # Bytecode is shared: compiling everything would take longer than all else.
            (link.parent / "__pycache__").symlink_to(file.parent / "__pycache__")
            made.add(link.parent)
        link.symlink_to(file)
    for each in closure(*extras).values():
        for script in each.entry_points.select(group="console_scripts"):
            _write_script(folder / "bin" / script.name, python, script.value)
    command = [
        sys.executable, "-m", "pip", "--python", str(python), "--no-cache-dir", "install",
        "--quiet", "--no-deps", "--no-index", "--no-compile", str(wheel),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return python


def _write_script(file: Path, python: Path, value: str) -> None:
    """What installers write for a function that is a command."""
    module, _, function = value.partition("[")[0].strip().partition(":")
    text = f"#!{python}\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n"
    file.write_text(text, encoding="utf-8")
    file.chmod(0o755)


def _files(distributions: Iterable[Distribution]) -> Iterator[tuple[str, Path]]:
    """Paths below site-packages and what lies there; scripts and bytecode are left out."""
    for each in distributions:
        for file in each.files or ():
            at = Path(str(file.locate()))
            if not re.match(r"\.\.|/", str(file)) and "__pycache__" not in file.parts:
                yield str(file), at.resolve()

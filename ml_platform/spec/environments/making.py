"""Making the environment of a use case: the platform's lock, changed as little as possible.

uv resolves and installs where it is there, pip otherwise. Nothing but packages is downloaded.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from packaging.utils import canonicalize_name

from ml_platform.errors import EnvironmentRefused
from ml_platform.spec.environments.own import LOCK, Environment
from ml_platform.spec.environments.platform import NAME, PROJECT, PlatformEnvironment, the_platform

ASKED = "platform.in"
PINNED = re.compile(r"^([A-Za-z0-9._-]+)(\[[^]]*\])?==\S+", re.MULTILINE)
# As `make lock` compiles the platform's own.
COMPILE = (
    "pip", "compile", "--quiet", "--universal", "--python-version", "3.11",
    "--fork-strategy", "fewest", "--no-strip-extras", "--generate-hashes", "--no-emit-index-url",
)  # fmt: skip
HASHED = "--require-hashes"


def make_environment(environment: Environment, *, locked: bool = False) -> bool:
    """Resolve, lock and install the environment of a use case; whether a lock file was written.

    A lock file that is up to date is installed as it is; locked: any other is refused, as in CI
    and in images. Raises EnvironmentRefused with what the resolver said where the requirements
    and the platform's exclude each other.
    """
    uv, platform = _uv(), the_platform()
    is_locked = _is_locked(environment)
    if locked and not is_locked:
        raise EnvironmentRefused(
            f"{environment.lock} is missing, or {environment.requirements.name} or the platform's "
            f"lock has changed since it was written; run `{environment.command}` and commit it"
        )
    if uv is not None and not is_locked:
        _lock(environment, uv, platform)
    environment.unmark()
    # What pip installed before is not taken out again: the folder is emptied.
    clear = [] if uv else ["--clear"]
    at = str(environment.folder)
    _run(environment, [sys.executable, "-m", "venv", "--without-pip", *clear, at])
    if uv is not None:
        _run(environment, _with_uv(environment, uv))
    else:
        _install_with_pip(environment, is_locked, platform)
    platform.link(environment.folder)
    environment.mark()
    return uv is not None and not is_locked


def _uv() -> str | None:
    """Uv of the environment that runs this, where `make install` puts it, or of the PATH."""
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.exists() else shutil.which("uv")


def _is_locked(environment: Environment) -> bool:
    if not environment.lock.is_file():
        return False
    with environment.lock.open(encoding="utf-8") as lines:
        return next(lines, "") == _first_line(environment)


def _first_line(environment: Environment) -> str:
    return f"# inputs: sha256:{environment.inputs}\n"


def _lock(environment: Environment, uv: str, platform: PlatformEnvironment) -> None:
    """Resolve from the platform's lock: a version differs only where the requirements ask for it.

    Packages that the platform has not stay at the versions that were locked before.
    """
    folder = environment.requirements.parent
    with tempfile.TemporaryDirectory(dir=folder, prefix=".lock-") as made:
        # uv prefers the versions that it finds in the file that it is to write.
        lock = Path(made) / LOCK
        lock.write_text(_preferred(environment, platform.pins), encoding="utf-8")
        # As a project, so that what the resolver says names the platform.
        asked = Path(made) / PROJECT
        asked.write_text(
            f'[project]\nname = "{NAME}"\nversion = "0"\n'
            f"dependencies = {json.dumps(platform.asked)}\n",
            encoding="utf-8",
        )
        command = [
            uv, *COMPILE, "--custom-compile-command", environment.command,
            os.path.relpath(asked, folder), environment.requirements.name,
            "-o", os.path.relpath(lock, folder),
        ]  # fmt: skip
        _run(environment, command, folder)
        lock.write_text(_first_line(environment) + lock.read_text(encoding="utf-8"))
        lock.replace(environment.lock)


def _preferred(environment: Environment, base: str) -> str:
    if not environment.lock.is_file():
        return base
    known = {canonicalize_name(found[1]) for found in PINNED.finditer(base)}
    before = environment.lock.read_text(encoding="utf-8")
    own = [f for f in PINNED.finditer(before) if canonicalize_name(f[1]) not in known]
    return base + "".join(f"{found[0]}\n" for found in own)


def _with_uv(environment: Environment, uv: str) -> list[str]:
    # Otherwise each process would compile all that it imports, for nobody keeps it.
    is_never_kept = os.environ.get("PYTHONDONTWRITEBYTECODE")
    compiled = ["--compile-bytecode"] if is_never_kept else []
    python = ["--python", str(environment.python)]
    return [uv, "pip", "sync", "--quiet", *python, *compiled, HASHED, str(environment.lock)]


def _install_with_pip(
    environment: Environment, is_locked: bool, platform: PlatformEnvironment
) -> None:
    """Pip cannot write a lock: it installs the platform's and adds what the use case asks for."""
    python = str(environment.python)
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    if is_locked:
        _run(environment, [*install, HASHED, "-r", str(environment.lock)])
        return
    with tempfile.TemporaryDirectory() as made:
        pins, asked = Path(made) / LOCK, Path(made) / ASKED
        pins.write_text(platform.pins, encoding="utf-8")
        _run(environment, [*install, *([HASHED] if platform.is_hashed else []), "-r", str(pins)])
        # With what the platform asks for, which keeps holding.
        asked.write_text("\n".join(platform.asked) + "\n", encoding="utf-8")
        _run(environment, [*install, "-r", str(environment.requirements), "-r", str(asked)])


def _run(environment: Environment, command: Sequence[str], folder: Path | None = None) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise EnvironmentRefused(
            f"{environment.requirements}: the environment of {environment.use_case}, with these "
            f"and what the platform needs, cannot be made:\n{said}"
        )

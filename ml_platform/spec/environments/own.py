"""Which use cases have an environment of their own, and which environment a process runs in.

A use case whose folder holds `requirements.txt` or `requirements.in` has one; all others share the
platform's. A process knows its own by a mark that `make_environment` leaves in it.
"""

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ml_platform.errors import EnvironmentMissing
from ml_platform.settings import Settings
from ml_platform.spec.environments.platform import the_platform
from ml_platform.spec.loading import Loaded

REQUIREMENTS = ("requirements.txt", "requirements.in")
LOCK = "requirements.lock"
MARK = "ml-platform-environment.json"

State = Literal["ready", "outdated", "missing"]


@dataclass(frozen=True)
class Environment:
    """The environment of one use case, made or not."""

    use_case: str
    requirements: Path
    """What the use case declares; its lock file lies beside it."""
    folder: Path
    """Where the environment is, or will be."""

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def lock(self) -> Path:
        return self.requirements.with_name(LOCK)

    @property
    def inputs(self) -> str:
        """Digest of what the environment is made from: the use case's file and the platform's."""
        return _digest(self.requirements.read_bytes(), *_of_platform())

    @property
    def locked(self) -> str | None:
        """Digest of the lock file; None where there is none."""
        return _digest(self.lock.read_bytes()) if self.lock.is_file() else None

    @property
    def state(self) -> State:
        """`outdated` where the requirements or the lock file have changed since it was made."""
        mark = _mark(self.folder)
        if mark.get("use_case") != self.use_case or not self.python.exists():
            return "missing"
        same = mark["inputs"] == self.inputs and mark["lock"] == self.locked
        return "ready" if same else "outdated"

    @property
    def command(self) -> str:
        """What makes it."""
        return f"ml-platform environment {self.use_case}"

    def mark(self) -> None:
        """Leave in the environment what it was made from, for processes that run in it."""
        made = {"use_case": self.use_case, "inputs": self.inputs, "lock": self.locked}
        (self.folder / MARK).write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")

    def unmark(self) -> None:
        """From here on it counts as missing, until it is marked again."""
        (self.folder / MARK).unlink(missing_ok=True)

    def require_made(self) -> Path:
        """Its interpreter; EnvironmentMissing where it has not been made."""
        if self.state == "missing":
            raise EnvironmentMissing(
                f"{self.use_case} has an environment of its own ({self.requirements}), which is "
                f"not there: run `{self.command}`"
            )
        return self.python


def environment_of(settings: Settings, name: str, folder: Path) -> Environment | None:
    """The environment that a use case's folder asks for; None where the platform's will do."""
    for requirements in REQUIREMENTS:
        if (folder / requirements).is_file():
            at = settings.environments.absolute() / name
            return Environment(name, (folder / requirements).absolute(), at)
    return None


def environments_of(settings: Settings, loaded: Loaded) -> dict[str, Environment]:
    """Environments of use cases by name, also of those that are broken."""
    folders = {case.name: case.folder for case in loaded.use_cases.values()}
    folders |= {name: settings.use_cases / name for name in loaded.broken}
    found = {name: environment_of(settings, name, at) for name, at in sorted(folders.items())}
    return {name: each for name, each in found.items() if each is not None}


def is_platforms() -> bool:
    """Whether this process runs in the platform's environment, not in one of a use case."""
    return _here() is None


def runs_here(name: str, folder: Path) -> bool:
    """Whether code of a use case is run in the environment of this process."""
    has_own = any((folder / requirements).is_file() for requirements in REQUIREMENTS)
    return _here() == (name if has_own else None)


def _here() -> str | None:
    """The use case whose environment this process runs in."""
    return _mark(Path(sys.prefix)).get("use_case")


def _mark(prefix: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((prefix / MARK).read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return {}


def _of_platform() -> list[bytes]:
    """What the platform is made of, and what it asks for."""
    platform = the_platform()
    return [platform.pins.encode(), json.dumps(platform.asked).encode()]


def _digest(*contents: bytes) -> str:
    found = hashlib.sha256()
    for content in contents:
        found.update(hashlib.sha256(content).digest())
    return found.hexdigest()

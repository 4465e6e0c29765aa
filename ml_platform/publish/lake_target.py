"""What publishing to a lake's tables has in common, whatever format they have."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ml_platform.errors import TargetError, TargetUnavailable
from ml_platform.failures import failure_of
from ml_platform.publish.target import named_errors
from ml_platform.settings import Settings
from ml_platform.storage.extras import not_installed
from ml_platform.storage.turns import alone


class LakeTarget:
    """A folder or a catalog of tables of others.

    database: its name in the setting, for messages.
    """

    def __init__(self, settings: Settings, database: str) -> None:
        self.settings, self.database = settings, database

    @contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        # An object store has no lock: processes of one machine take turns. Whoever wrote on another
        # one what is out of date by then notices at the commit to the platform's lake, and begins
        # again.
        with alone(self._folder() / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.lock"):
            yield

    def _folder(self) -> Path:
        """Where publishers keep files of their own on this machine."""
        folder = Path(self.settings.root / "publishing")
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def close(self) -> None:
        """Nothing stays open."""

    @contextmanager
    def _named(self) -> Iterator[None]:
        with named_errors(self.settings, f"lake '{self.database}'"):
            try:
                yield
            except ImportError as error:
                raise TargetError(f"lake '{self.database}': {not_installed(error)}") from None
            except OSError as error:
                # What the libraries raise of disks and of object stores has no module of theirs.
                failure = failure_of(TargetError(str(error)), self.settings)
                kind = TargetUnavailable if failure.kind == "unavailable" else TargetError
                raise kind(f"lake '{self.database}': {failure}") from None

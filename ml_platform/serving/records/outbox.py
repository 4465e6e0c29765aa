"""Where files of the service are written, and how they come to a landing folder that is a URL.

Then they land in a folder of this machine first, and are brought to the landing folder from there.
Sources are read through DuckDB and these files are written by it: the same extensions and secrets
serve for both.
"""

import fcntl
import logging
import os
import time
from collections.abc import Iterable
from glob import escape
from pathlib import Path

import duckdb

from ml_platform.errors import LakeError, ServingMisconfigured
from ml_platform.serving.records.segments import ENDING
from ml_platform.settings import Settings
from ml_platform.sources.listing import first_line
from ml_platform.spec.queries import literal
from ml_platform.spec.use_case import LOGGED_SOURCES, UseCase
from ml_platform.storage import Lake

EXTENSIONS = {
    "s3": "httpfs", "gs": "httpfs", "gcs": "httpfs", "r2": "httpfs",
    "az": "azure", "azure": "azure", "abfss": "azure",
}  # fmt: skip
"""Object stores that DuckDB can write to, by scheme, and what it needs for that."""
PAUSE_SECONDS = 10.0
"""How long nothing is brought after an attempt has failed."""

LOG = logging.getLogger(__name__)


def written_below(settings: Settings, use_case: UseCase) -> Path:
    """The folder of this machine below which the sources that a service writes land first."""
    here = not lands_elsewhere(settings)
    root = Path(settings.landing_uri).absolute() if here else settings.root / "outbox"
    return root / use_case.name


class Outbox:
    """Brings files to the landing folder, if that is a URL; several processes may share a folder.

    Raises ServingMisconfigured where the URL is none that can be written to.
    """

    def __init__(self, lake: Lake, use_cases: Iterable[UseCase]) -> None:
        self._lake = lake
        self._cases = [
            case for case in use_cases if not case.sources.keys().isdisjoint(LOGGED_SOURCES)
        ]
        self._resume_at = 0.0
        if self._cases and lands_elsewhere(lake.settings):
            _check(lake.settings, self._cases[0])

    def empty(self) -> None:
        """Bring what has landed here; what could not be brought stays for the next time."""
        if not lands_elsewhere(self._lake.settings) or time.monotonic() < self._resume_at:
            return
        for case in self._cases:
            for path in sorted(written_below(self._lake.settings, case).glob(f"*/*{ENDING}")):
                try:
                    self._bring(case, path)
                except (duckdb.Error, LakeError, OSError) as error:
                    LOG.warning("%s is not brought to landing yet: %s", path, first_line(error))
                    self._resume_at = time.monotonic() + PAUSE_SECONDS
                    return

    def _bring(self, case: UseCase, path: Path) -> None:
        try:
            file = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Another process may have brought it while it was being opened.
            if not path.exists():
                return
            landing = self._lake.settings.landing_uri.rstrip("/")
            target = f"{landing}/{case.name}/{path.parent.name}/{path.name}"
            with self._lake.cursor() as cursor:
                # An object store shows the object once it is whole. Where this process ends before
                # the next line, it is written a second time under its name: that is no news.
                cursor.execute(
                    f"COPY (SELECT content FROM read_blob({literal(escape(str(path)))})) "
                    f"TO {literal(target)} (FORMAT blob)"
                )
            path.unlink()
        except BlockingIOError:
            return
        finally:
            os.close(file)


def lands_elsewhere(settings: Settings) -> bool:
    """Whether the landing folder is a URL, so that files have to be brought to it."""
    return "://" in settings.landing_uri


def _check(settings: Settings, use_case: UseCase) -> None:
    scheme = settings.landing_uri.partition("://")[0]
    why = (
        f"{use_case.name} keeps requests or feedback, which land as files, and ML_PLATFORM_LANDING "
        f"is {settings.landing_uri}: "
    )
    if scheme not in EXTENSIONS:
        raise ServingMisconfigured(
            f"{why}nothing can be written to {scheme}://. Set it to a folder that is mounted here, "
            "or to a URL that begins with s3://, gs:// or az://; or declare neither `serving.log` "
            "nor `label.feedback`"
        )
    if EXTENSIONS[scheme] not in settings.extensions:
        listed = ",".join((*settings.extensions, EXTENSIONS[scheme]))
        raise ServingMisconfigured(
            f"{why}set ML_PLATFORM_EXTENSIONS={listed}, and ML_PLATFORM_SECRETS_SQL to a "
            "`CREATE SECRET` that may write there"
        )

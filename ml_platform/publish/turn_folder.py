"""Where publishers of one machine take turns, and what distinguishes that machine from others."""

import hashlib
import platform
import secrets
from pathlib import Path

from ml_platform.settings import Settings
from ml_platform.storage.turns import alone


def turn_folder(settings: Settings) -> Path:
    """Where publishers keep files of their own on this machine."""
    folder = Path(settings.root / "publishing")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def turn_file(settings: Settings, name: str) -> Path:
    """The file that is locked by who publishes under a name on this machine."""
    return turn_folder(settings) / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.lock"


def machine_of(settings: Settings) -> str:
    """A word that all publishers have in common whose turns are files of the same folder."""
    folder = turn_folder(settings)
    with alone(folder / "machine.lock"):
        file = folder / "machine"
        if not file.exists():
            file.write_text(secrets.token_hex(8))
        # A folder that several machines mount may lock its files for each of them alone.
        return f"{platform.node()}-{file.read_text()}"

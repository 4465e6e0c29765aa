"""A last look at the bytes of every file of this machine, whatever is supposed to be in it."""

import os
from collections.abc import Iterator
from pathlib import Path

from ml_platform.erasure.entity import Entity
from ml_platform.settings import Settings
from ml_platform.storage.stored_files import STEP_BYTES
from ml_platform.upkeep.parts import Places


def files_with(settings: Settings, entity: Entity) -> list[str]:
    """Files of the deployment in whose bytes every value of the entity stands, uncompressed.

    None is looked for where a value is so short that others have it, too.
    """
    if not entity.is_distinctive:
        return []
    values = [value.encode() for value in entity.values.values()]
    return [str(path) for path in _files(settings) if holds_all(path, values)]


def _files(settings: Settings) -> Iterator[Path]:
    folders = {Path(f) for f in Places.of(settings).folders.values() if f.startswith("/")}
    seen: set[Path] = set()
    for folder in sorted(folders):
        for here, _, names in os.walk(folder):
            for path in (Path(here, name) for name in sorted(names)):
                if path not in seen and path.is_file():
                    seen.add(path)
                    yield path


def holds_all(path: Path, values: list[bytes]) -> bool:
    """Whether each of some values is somewhere in a file; no file has none."""
    left, before = set(values), b""
    overlap = max(map(len, values))
    try:
        with path.open("rb") as file:
            while left and (piece := file.read(STEP_BYTES)):
                piece = before + piece
                left -= {value for value in left if value in piece}
                before = piece[-overlap:]
    except FileNotFoundError:
        return False
    return not left

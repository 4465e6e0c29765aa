"""A working use case, written from files of a plain table."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from ml_platform.errors import Location, SpecError
from ml_platform.settings import Settings
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.scaffold.draft import Draft, slug
from ml_platform.spec.scaffold.files import ending_of
from ml_platform.spec.scaffold.guessing import Guess, Overrides, guess
from ml_platform.spec.scaffold.profile import Profile
from ml_platform.spec.scaffold.texts import texts_of
from ml_platform.spec.values import time_zone

SOURCE = "records"


@dataclass(frozen=True)
class Scaffolded:
    """What was written, and why it is as it is."""

    folder: Path
    landed: str
    """Where the files are now, or where they have to be put."""
    is_landed: bool
    guess: Guess


def scaffold(settings: Settings, name: str, file: Path, said: Overrides) -> Scaffolded:
    """Write `use_cases/<name>` from a file, a folder or a glob, and land the files for it.

    Raises SpecError, and writes nothing, where the name is taken or no name, or where the files
    cannot be read or leave something unguessed.
    """
    folder = settings.use_cases / name
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,47}", name):
        problem = f"'{name}' should be lower case letters, digits and underscores"
        raise SpecError(Location(folder), "", f"{problem}, such as '{slug(name)}'")
    if folder.exists():
        raise SpecError(Location(folder), "", "is there already; remove it, or take another name")
    try:
        time_zone(said.timezone)
    except ValueError as error:
        raise SpecError(Location(file), "--timezone", str(error)) from None
    profile = Profile(file, said.timezone)
    try:
        draft = Draft(name, profile, guess(profile, said), said.timezone)
        _write(folder, draft)
    finally:
        profile.close()
    landing = f"{settings.landing_uri.rstrip('/')}/{name}/{SOURCE}"
    files = profile.files
    is_landed = all(_land(path, f"{landing}/{path.name}") for path in files)
    landed = f"{landing}/{files[0].name if len(files) == 1 else '*' + ending_of(files[0])}"
    return Scaffolded(folder, landed, is_landed, draft.guess)


def _write(folder: Path, draft: Draft) -> None:
    # Written beside and moved in one step: a use case is there whole, or not at all.
    hidden = folder.with_name(f".{folder.name}")
    beside = hidden / folder.name
    try:
        for name, text in texts_of(draft).items():
            path = beside / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        load_use_case(beside)
        beside.rename(folder)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def _land(file: Path, landed: str) -> bool:
    if "://" in landed:
        return False
    target = Path(landed)
    target.parent.mkdir(parents=True, exist_ok=True)
    # A new name first: what watches the folder never sees half a file.
    partial = target.with_name(f".{target.name}")
    shutil.copyfile(file, partial)
    partial.rename(target)
    return True

"""The files that a new use case is written from."""

import glob
from collections import Counter
from pathlib import Path

from ml_platform.errors import Location, SpecError

ENDINGS = {
    ".csv": "csv", ".parquet": "parquet", ".pq": "parquet",
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl",
}  # fmt: skip


def files_of(said: Path) -> tuple[Path, ...]:
    """The files that a path, a folder or a glob names; SpecError where they are no single kind."""
    if said.is_dir():
        inside = (file for file in said.iterdir() if not file.name.startswith("."))
        files = sorted(file for file in inside if _plain_ending(file) in ENDINGS)
    elif said.is_file() or not glob.has_magic(str(said)):
        return (said,)
    else:
        files = sorted(file for file in map(Path, glob.glob(str(said))) if file.is_file())
    endings = Counter(ending_of(file) for file in files)
    if not files:
        problem = f"there is no file to read; there should be some of {', '.join(ENDINGS)}"
        raise SpecError(Location(said), "", problem)
    if len(endings) > 1:
        kinds = ", ".join(f"{count} {ending}" for ending, count in endings.most_common())
        (ending, _), *_ = endings.most_common()
        folder = said if said.is_dir() else said.parent
        problem = f"there are files of several kinds ({kinds}); name one: '{folder}/*{ending}'"
        raise SpecError(Location(said), "", problem)
    for name, count in Counter(file.name for file in files).items():
        if count > 1:
            problem = f"{count} files are called {name}, and they would land in one folder"
            raise SpecError(Location(said), "", f"{problem}; give each a name of its own")
    return tuple(files)


def ending_of(file: Path) -> str:
    """How a file's name ends, `.gz` included."""
    zipped = file.name[-3:] if file.name.lower().endswith(".gz") else ""
    return Path(file.name.removesuffix(zipped)).suffix + zipped


def _plain_ending(file: Path) -> str:
    return ending_of(file).lower().removesuffix(".gz")


def file_format(file: Path) -> str:
    """How a file is read, by the ending of its name; SpecError where it is not there."""
    if not file.is_file():
        near = sorted(other.name for other in file.parent.glob("*.*"))[:5]
        hint = f"; there are {', '.join(near)}" if near else ""
        raise SpecError(Location(file), "", f"there is no such file{hint}")
    ending = _plain_ending(file)
    if ending not in ENDINGS:
        problem = f"'{ending}' is not a supported format; there are {', '.join(ENDINGS)}"
        raise SpecError(Location(file), "", problem)
    return ENDINGS[ending]

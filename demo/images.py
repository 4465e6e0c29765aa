"""Images of docs: what each is drawn by, and whether it was drawn before that changed.

`docs/images/pages.json` has the digests of each image and of everything that drew it when
`make screenshots` took it.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import FileSystemLoader, meta

from ml_platform.html import page_templates
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.tables import reads_of, tables_of

ROOT = Path(__file__).parents[1]
FOLDER = Path("docs/images")
TAKEN = FOLDER / "pages.json"
USE_CASE = Path("use_cases/flight_delays")
STYLE = "style.css"
"""Of every page, which has it within."""
SHOWN = 16
"""Digits of a digest that are kept."""


@dataclass(frozen=True)
class Image:
    """One image of docs; what its data are is not part of what draws it."""

    modules: tuple[str, ...] = ()
    """Files of Python that draw it."""
    template: str = ""
    """Of a page; those that it extends or takes macros from follow."""
    has_tables: bool = False
    """Whether it shows the tables of the use case and what each is computed from."""


IMAGES: Mapping[str, Image] = {
    "page_use_case": Image(
        (
            "ml_platform/web/charts.py",
            "ml_platform/web/timelines.py",
            "ml_platform/web/use_case.py",
        ),
        "use_case.html",
    ),
    "page_drift": Image(
        ("ml_platform/web/charts.py", "ml_platform/web/partitions.py"), "drift.html"
    ),
    "page_version": Image(("ml_platform/web/versions.py",), "version.html"),
    "year": Image(("demo/year_picture.py",)),
    "replay": Image(("ml_platform/replay/picture.py",)),
    "lineage": Image(has_tables=True),
}
"""By name of the file, without `.png`."""


def drawn_by(name: str, root: Path = ROOT) -> dict[str, str]:
    """Digest of each thing that draws an image, by its name for people."""
    image = IMAGES[name]
    files = [root / module for module in image.modules]
    if image.template:
        files += sorted(_templates(image.template, root) | _templates(STYLE, root))
    found = {file.relative_to(root).as_posix(): digest(file.read_bytes()) for file in files}
    if image.has_tables:
        use_case = load_use_case(root / USE_CASE)
        tables = {
            table: [read.table for read in reads_of(use_case, table)]
            for table in tables_of(use_case)
        }
        found["tables of flight_delays"] = digest(json.dumps(tables).encode())
    return found


def digest(content: bytes) -> str:
    """Of a file, short enough to read."""
    return hashlib.sha256(content).hexdigest()[:SHOWN]


def note(name: str, root: Path = ROOT) -> None:
    """Note what an image that was taken just now was drawn by."""
    taken = {
        **_taken(root),
        name: {
            "image": digest((root / FOLDER / f"{name}.png").read_bytes()),
            "by": drawn_by(name, root),
        },
    }
    (root / TAKEN).write_text(json.dumps(taken, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def outdated(root: Path = ROOT) -> Iterator[str]:
    """Images that something else draws today, or that are not those that were taken, and why."""
    taken = _taken(root)
    for name in IMAGES:
        file, noted = root / FOLDER / f"{name}.png", taken.get(name)
        if noted is None or not file.exists():
            yield f"{name}.png was never taken"
            continue
        by, now = noted["by"], drawn_by(name, root)
        changed = sorted(each for each in {*by, *now} if by.get(each) != now.get(each))
        if changed:
            yield f"{name}.png is older than {', '.join(changed)}"
        elif noted["image"] != digest(file.read_bytes()):
            yield f"{name}.png is not the one that was taken"


def _taken(root: Path) -> dict[str, dict[str, Any]]:
    file = root / TAKEN
    found: dict[str, dict[str, Any]] = json.loads(file.read_text()) if file.exists() else {}
    return found


def _templates(first: str, root: Path) -> set[Path]:
    """Files of a template of pages and of all that it names."""
    folders = [root / "ml_platform" / name / "templates" for name in ("web", "html")]
    loader = FileSystemLoader(folders)
    environment = page_templates("ml_platform.web").overlay(loader=loader)
    names, files = [first], dict[str, Path]()
    while names:
        name = names.pop()
        if name not in files:
            source, file, _ = loader.get_source(environment, name)
            files[name] = Path(file)
            named = meta.find_referenced_templates(environment.parse(source))
            names += [each for each in named if each]
    return set(files.values())

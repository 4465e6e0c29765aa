"""Dagster's private modules are used in one place, and what is used of them is there."""

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from dagster._core.definitions.data_version import CODE_VERSION_TAG, DATA_VERSION_TAG
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION
from dagster._core.storage import tags
from dagster._core.storage.event_log.sqlite.consolidated_sqlite_event_log import (
    SQLITE_EVENT_LOG_FILENAME,
)

from ml_platform_dagster.resources import private

ROOT = Path(__file__).parents[1]
PRIVATE = ROOT / "resources" / "private.py"
FOLDERS = ("assets", "benchmarks", "demo", "examples", "ml_platform", "resources", "sensors")
MOST = 11
"""Statements that import private modules."""


def private_imports(file: Path) -> Iterator[tuple[str, str]]:
    """Modules, and names that are imported from them."""
    text = file.read_text(encoding="utf-8")
    # Parsing all files takes seconds.
    for node in ast.walk(ast.parse(text)) if "dagster" in text else ():
        match node:
            case ast.ImportFrom(module=str(module), names=names):
                found = ((module, each.name) for each in names)
                yield from (each for each in found if is_private(".".join(each)))
            case ast.Import(names=names):
                yield from ((each.name, "") for each in names if is_private(each.name))
            # What a configuration names is imported as well.
            case ast.Constant(value=str(value)) if " " not in value and is_private(value):
                yield value, ""


def is_private(module: str) -> bool:
    top, *below = module.split(".")
    return top.startswith("dagster") and any(part.startswith("_") for part in below)


USED = sorted(set(private_imports(PRIVATE)))


@pytest.mark.parametrize(("module", "name"), USED)
def test_what_is_used_is_there(module: str, name: str) -> None:
    said = f"Dagster has moved {module}.{name}; see its release notes and resources/private.py"
    try:
        found = import_module(module)
    except ImportError:
        pytest.fail(said)
    assert not name or hasattr(found, name), said


def test_it_is_little() -> None:
    assert 0 < len({module for module, _ in USED}) <= MOST


def test_nothing_else_imports_private_modules() -> None:
    files = [ROOT / "definitions.py", *(f for each in FOLDERS for f in (ROOT / each).rglob("*.py"))]
    found = {
        str(file.relative_to(ROOT)): imports
        for file in files
        if file != PRIVATE and (imports := list(private_imports(file)))
    }
    assert found == {}, "import it in resources/private.py, which says what it is for"


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (private.CODE_VERSION, CODE_VERSION_TAG),
        (private.DATA_VERSION, DATA_VERSION_TAG),
        (private.OBSERVATION, SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION),
        (private.EVENT_LOG, f"{SQLITE_EVENT_LOG_FILENAME}.db"),
        (private.PARTITION, tags.PARTITION_NAME_TAG),
        (private.RANGE_START, tags.ASSET_PARTITION_RANGE_START_TAG),
        (private.RANGE_END, tags.ASSET_PARTITION_RANGE_END_TAG),
        (private.BACKFILL, tags.BACKFILL_ID_TAG),
        (private.RETRY_NUMBER, tags.RETRY_NUMBER_TAG),
        (private.SCHEDULE_NAME, tags.SCHEDULE_NAME_TAG),
        (private.SENSOR_NAME, tags.SENSOR_NAME_TAG),
        (private.AUTO_MATERIALIZE, tags.AUTO_MATERIALIZE_TAG),
        (private.AUTOMATION_CONDITION, tags.AUTOMATION_CONDITION_TAG),
        (private.USER, tags.USER_TAG),
        (private.GRPC_INFO, tags.GRPC_INFO_TAG),
    ],
)
def test_what_dagster_stores_has_these_names(ours: str, theirs: str) -> None:
    assert ours == theirs, "Dagster stores another name; see resources/private.py"

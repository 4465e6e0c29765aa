"""Code locations as versions: which commit each is at, and which one a run is of."""

import subprocess
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ml_platform.orchestrator import CodeLocation
from ml_platform.orchestrator.parameters import (
    PIPELINES,
    VERSION,
    asked_in,
    described_by,
    tags_of_pipeline,
)
from ml_platform.settings import Settings
from ml_platform.spec.code import code_state
from ml_platform_dagster.definitions import build_definitions
from ml_platform_dagster.resources.versions import require_version, version_of
from tests.trips_use_case import write_folder

COMMIT = "3f0c1b526d0e4a539d8b0a4c5f0f7a113f0c1b52"


def location(version: str | None = COMMIT, **entries: str) -> CodeLocation:
    reported = {PIPELINES: '{"train": {}}', **({VERSION: version} if version else {}), **entries}
    node: dict[str, Any] = {
        "assetKey": {"path": ["trips", "model"]},
        "tags": [],
        "metadataEntries": [
            *({"label": label, "text": text} for label, text in reported.items()),
            {"label": "dagster/table_name"},
        ],
    }
    return CodeLocation.read("trips", "__repository__", "ml-platform", [node])


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=ada", "-c", "user.email=ada@localhost"]
    done = subprocess.run(
        ["git", "-C", str(folder), *who, *words], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    write_folder(tmp_path, "binary")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "first")
    return tmp_path


def test_a_version_is_named_by_its_commit_or_the_beginning_of_it() -> None:
    found = location()
    assert (found.version, found.is_kept, found.tables) == (COMMIT, False, {"model"})
    assert found.is_version(COMMIT)
    assert found.is_version(COMMIT[:7])
    assert not found.is_version("0" * 7)
    assert not found.is_version(COMMIT[1:])


def test_changes_that_are_not_committed_are_no_version_of_the_commit() -> None:
    changed = location(f"{COMMIT}-dirty")
    assert not changed.is_version(COMMIT)
    assert not changed.is_version(COMMIT[:7])
    assert changed.is_version(f"{COMMIT}-dirty")


def test_a_location_that_says_nothing_is_no_version() -> None:
    for silent in (location(None), location("unknown")):
        assert silent.version is None
        assert not silent.is_version("unknown")


def test_what_was_asked_for_comes_back_from_the_tags() -> None:
    asked = {"cutoff": "2024-03-01", "window": "20d", "sample": 0.5, "locations": {"trips": "a"}}
    tags = tags_of_pipeline("monthly", COMMIT, asked)
    assert asked_in(tags) == asked
    assert tags["ml_platform/training_window"] == "20d"
    assert described_by({**tags, "user": "ada"}).keys() == {"pipeline", "version", "parameters"}
    assert (asked_in({}), described_by({"user": "ada"})) == ({}, {})
    assert VERSION not in tags_of_pipeline("monthly", None, {})


def test_the_version_is_the_commit_of_the_use_cases(repository: Path) -> None:
    settings = Settings(use_cases=repository, data=repository / "data")
    commit = git(repository, "rev-parse", "HEAD")
    assert version_of(settings) == commit
    spec = repository / "trips" / "model.py"
    spec.write_text(spec.read_text() + "\n")
    assert version_of(settings) == f"{commit}-dirty"
    assert version_of(settings.model_copy(update={"code_commit": "of an image"})) == "of an image"
    state = code_state(repository / "trips")
    assert state is not None
    assert (state.commit, state.is_dirty, state.root) == (commit, True, repository.resolve())


def test_a_folder_without_git_has_no_version(tmp_path: Path) -> None:
    assert version_of(Settings(use_cases=tmp_path)) is None
    assert code_state(tmp_path / "nowhere") is None


def test_a_run_of_another_commit_than_was_asked_for_fails(repository: Path) -> None:
    settings = Settings(use_cases=repository)
    asked = {VERSION: git(repository, "rev-parse", "HEAD")}
    require_version(settings, asked)
    require_version(settings, {})
    # A file that somebody left there is no other version.
    (repository / "notes.txt").write_text("")
    require_version(settings, asked)
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "second")
    with pytest.raises(dg.Failure, match="reload the code location"):
        require_version(settings, asked)


def test_a_kept_version_says_so_and_starts_nothing(repository: Path) -> None:
    settings = Settings(use_cases=repository, data=repository / "data")
    current = build_definitions(settings)
    kept = build_definitions(settings.model_copy(update={"kept_version": True}))
    keys = {spec.key for spec in current.resolve_all_asset_specs()}
    specs = list(kept.resolve_all_asset_specs())
    assert {spec.key for spec in specs} == keys
    assert {spec.tags["ml_platform/kept_version"] for spec in specs} == {"true"}
    assert {spec.automation_condition for spec in specs} == {None}
    built = kept.get_repository_def()
    assert (list(built.sensor_defs), list(built.schedule_defs)) == ([], [])
    (model,) = [spec for spec in specs if spec.key.path[-1] == "model"]
    assert model.metadata[VERSION] == git(repository, "rev-parse", "HEAD")
    assert "ml_platform/kept_version" not in next(iter(current.resolve_all_asset_specs())).tags

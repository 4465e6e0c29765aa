"""The page that makes use cases of a CSV file, done as it says, from first to last line."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import ml_platform
from ml_platform.cli.app import app

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "first_use_case.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"(?:#|--) (use_cases/\S+)\n")
BETTER_THAN = {
    "parcels": ("roc_auc", 0.8),
    "late_parcels": ("roc_auc", 0.8),
    "parcel_hours": ("r2", 0.5),
    "parcel_speed": ("accuracy", 0.6),
}
"""Metric of the predictions that the page makes of each use case."""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What each command of the page prints, run in an empty folder."""
    root, found = tmp_path_factory.mktemp("first"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("ML_PLATFORM_DAGSTER_URL", "http://127.0.0.1:9")
        patch.setenv("ML_PLATFORM_THREADS", "1")
        for language, text in FENCE.findall(PAGE):
            if file := FILE.match(text):
                write(root / file[1], text)
            elif language == "python":
                exec(compile(text, "page", "exec"), {})
            else:
                assert language == "sh", text
                for line in text.splitlines():
                    found[line] = run(line)
        yield found


def write(file: Path, text: str) -> None:
    """Write a file of a use case; of YAML that is there already, the keys that are others."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".yaml" and file.exists():
        # As strings: YAML takes `on` for a truth.
        before, after = (yaml.load(each, yaml.BaseLoader) for each in (file.read_text(), text))
        text = yaml.safe_dump(before | after)
    file.write_text(text)


def run(line: str) -> str:
    program, *words = shlex.split(line)
    if program != "ml-platform":
        subprocess.run([program, *words], check=True)
        return ""
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, (line, done.output, done.exception)
    return done.output


def test_files_of_all_tasks_are_complete() -> None:
    written = {match[1] for _, text in FENCE.findall(PAGE) if (match := FILE.match(text))}
    assert written == {
        f"use_cases/{name}/{file}"
        for name, files in {
            "late_parcels": ("use_case.yaml", "features/depot.sql", "labels.sql", "model.py"),
            "parcel_hours": ("use_case.yaml", "labels.sql", "model.py"),
            "parcel_speed": ("use_case.yaml", "labels.sql", "model.py"),
        }.items()
        for file in files
    }
    for name in BETTER_THAN:
        assert f"\nml-platform train {name} " in PAGE


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.every_case
@pytest.mark.parametrize("name", BETTER_THAN)
def test_the_use_case_neither_leaks_nor_guesses(said: dict[str, str], name: str) -> None:
    assert (
        "5000 rows landed in 1 files, 5000 ingested, 0 quarantined"
        in said[f"ml-platform ingest {name}"]
    )
    for table in ("features", "labels"):
        assert "no leak" in said[f"ml-platform {table} {name}"]
    assert "promoted" in said[f"ml-platform promote {name}"]
    opened = ml_platform.open(name)
    metric, least = BETTER_THAN[name]
    reported = opened.performance()
    values = reported[(reported["metric"] == metric) & (reported["revision"] == "current")]
    assert values["value"].median() > least
    assert len(values) == 21
    opened.close()


@pytest.mark.slow
def test_the_guessed_one_is_shown_explained_and_traced(said: dict[str, str]) -> None:
    assert "version 1, trained at cutoff 2024-03-20" in said["ml-platform status parcels"]
    assert "distance_km" in said["ml-platform explain parcels 4500"]
    assert "parcels.csv" in said["ml-platform trace parcels 4500"]

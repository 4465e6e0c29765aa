"""Every model.py of the page about estimators trains, serves and is the same in another process."""

import hashlib
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import cloudpickle
import pandas as pd
import pytest
import yaml

from ml_platform.registry import ModelVersion, Registry, predict
from ml_platform.scoring.explain import explain
from ml_platform.settings import Settings
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake
from ml_platform.training import TrainingReport, train
from ml_platform.training.fitting import fit
from ml_platform.training.training_set import FitData, Labelled, collect
from tests.trips_use_case import COMMIT, at, days, land, settings, trips, write_folder

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "estimators.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^## ([^\n]+)$|^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FIRST_LINE = re.compile(r"# model\.py of a (binary|multiclass|regression) label\n")
SECTIONS = ["Linear models", "Trees of scikit-learn", "LightGBM", "XGBoost", "CatBoost"]
CUTOFF = at(25)
BETTER_THAN = {
    "binary": ("holdout_roc_auc", 0.85),
    "multiclass": ("holdout_accuracy", 0.7),
    "regression": ("holdout_r2", 0.5),
}


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """Section and text of each block of a language."""
    section = ""
    for found in FENCE.finditer(PAGE):
        section = found[1] or section
        if found[2] == language:
            yield section, found[3]


MODELS = [*blocks("python")]
NAMES = [f"{section.split()[0].lower()}_{number}" for number, (section, _) in enumerate(MODELS)]


@dataclass(frozen=True)
class Trained:
    """A version that a model.py of the page made, of trips of four weeks."""

    use_case: UseCase
    report: TrainingReport
    model: ModelVersion


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("estimators")


@pytest.fixture(scope="module")
def trained(root: Path) -> dict[str, Trained]:
    chosen = settings(root).model_copy(update={"threads": 1})
    lake, registry, found = Lake(chosen), Registry(chosen), {}
    for name, (_, text) in zip(NAMES, MODELS, strict=True):
        use_case = declare(root / name, text)
        if use_case.label.task not in {each.use_case.label.task for each in found.values()}:
            land(lake, use_case, trips(1, 25), days(1, 25))
        report = train(lake, registry, use_case, CUTOFF, COMMIT, tags={})
        found[name] = Trained(use_case, report, registry.load(use_case, report.version))
    lake.close()
    return found


def declare(root: Path, text: str) -> UseCase:
    """Trips with a model.py of the page, and what the page declares of the model."""
    first = FIRST_LINE.match(text)
    assert first, text
    folder = write_folder(root, first[1], text, name=first[1]).folder
    ((_, declared),) = blocks("yaml")
    spec = yaml.load((folder / "use_case.yaml").read_text(), yaml.BaseLoader)
    spec["model"] |= yaml.safe_load(declared)["model"]
    (folder / "use_case.yaml").write_text(yaml.safe_dump(spec))
    return load_use_case(folder)


def test_each_kind_of_estimator_has_a_section_with_a_model_of_its_own() -> None:
    assert list(dict.fromkeys(section for section, _ in MODELS)) == SECTIONS
    assert all("\ndef fit(pipeline, data):\n" in text for _, text in MODELS)


def test_everything_that_a_function_is_given_is_named() -> None:
    for given in (FitData, Labelled):
        for field in fields(given):
            assert f"\n| `{field.name}` | " in PAGE, field.name


@pytest.mark.slow
@pytest.mark.every_case
@pytest.mark.parametrize("name", NAMES)
def test_it_learns_and_is_loaded_as_it_was_fitted(trained: dict[str, Trained], name: str) -> None:
    found = trained[name]
    metric, least = BETTER_THAN[found.use_case.label.task]
    assert found.report.metrics[metric] > least
    reference = found.model.reference
    again = predict(found.use_case, found.model, reference)
    pd.testing.assert_frame_equal(again, reference[list(again)])


@pytest.mark.slow
@pytest.mark.every_case
@pytest.mark.parametrize("name", NAMES)
def test_it_predicts_texts_that_it_has_not_seen_and_nulls_and_can_be_explained(
    trained: dict[str, Trained], name: str
) -> None:
    found = trained[name]
    odd = pd.DataFrame(
        {
            "city": pd.Series(["Denver", None], dtype=object),
            "distance": [float("nan"), 5.0],
            "pace__pace": [0.1, float("nan")],
        }
    )
    assert len(predict(found.use_case, found.model, odd)) == 2
    assert len(explain(found.use_case, found.model, odd, samples=4)) == 2


def digests(data: str, *folders: str) -> list[str]:
    """Of the estimators that the use cases in these folders fit, pickled as MLflow does."""
    lake, found = Lake(Settings(data=Path(data)), read_only=True), []
    for folder in folders:
        use_case = load_use_case(Path(folder))
        with lake.cursor(use_case.timezone) as cursor:
            rows = collect(cursor, lake, use_case, CUTOFF, lake.snapshot(cursor))
        fitted = fit(use_case, rows, threads=1).estimator
        pickled = cloudpickle.dumps(fitted, protocol=pickle.DEFAULT_PROTOCOL)
        found.append(hashlib.sha256(pickled).hexdigest())
    lake.close()
    return found


AGAIN = "import sys; from tests.test_docs_estimators import digests; print(*digests(*sys.argv[1:]))"


@pytest.mark.slow
@pytest.mark.every_case
def test_another_process_with_another_hash_seed_makes_the_same_models_to_the_bit(
    trained: dict[str, Trained], root: Path
) -> None:
    where = (str(settings(root).data), *(str(each.use_case.folder) for each in trained.values()))
    done = subprocess.run(
        [sys.executable, "-c", AGAIN, *where],
        env={**os.environ, "PYTHONHASHSEED": "12345"}, cwd=ROOT,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [each.report.digest for each in trained.values()]

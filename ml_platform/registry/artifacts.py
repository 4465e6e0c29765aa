"""The files of a model version: an MLflow model, and what it was made from."""

import ast
import contextlib
import hashlib
import json
import logging
import re
import sys
from collections.abc import Iterator
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow.parquet as pq

from ml_platform.errors import ArtifactLost, ModelOutdated, ModelRefused
from ml_platform.masking import masked
from ml_platform.registry.environment import environment, require_environment
from ml_platform.registry.versions import SeenColumn, TrainedModel, fitted_columns
from ml_platform.settings import Settings
from ml_platform.spec.queries import is_numeric
from ml_platform.spec.use_case import SPEC_FILE, UseCase

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion as RegisteredVersion
    from mlflow.models import ModelSignature

ESTIMATOR = "model.pkl"
REFERENCE = "reference.parquet"
FACTS = "model_version.json"
NEEDED = frozenset(
    {
        "cutoff", "snapshot", "trained_from", "trained_until", "columns", "classes", "metrics",
        "seen", "importances", "environment",
    }
)  # fmt: skip
"""Facts that a version has to have."""
DIGESTED = (ESTIMATOR, REFERENCE, FACTS)

MISSING = re.compile(r"(?i)no such (artifact|file)|not found|does not exist|404|NoSuchKey")
"""What MLflow's artifact stores say of a file that is not there."""
LOGGER = logging.getLogger(__name__)
EXAMPLE_ROWS = 5
PACKAGES = {
    "cloudpickle": "cloudpickle", "mlflow": "mlflow", "numpy": "numpy", "pandas": "pandas",
    "sklearn": "scikit-learn", "scipy": "scipy",
}  # fmt: skip
"""Import names and distributions that every model needs to be loaded elsewhere."""


def requirements(use_case: UseCase) -> list[str]:
    """Distributions that the model's code imports, at their installed versions, sorted."""
    source = (use_case.folder / use_case.model_file).read_text(encoding="utf-8")
    imported: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imported.add(node.module.split(".")[0])
    names = set(PACKAGES.values())
    if others := imported - sys.stdlib_module_names - PACKAGES.keys():
        distributions = metadata.packages_distributions()
        names |= {name for other in others for name in distributions.get(other, [])[:1]}
    return sorted(f"{name}=={metadata.version(name)}" for name in names)


def digest_of(content: bytes) -> str:
    """SHA-256, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def write_model(
    folder: Path, use_case: UseCase, trained: TrainedModel, run_id: str, logged: "LoggedModel"
) -> dict[str, str]:
    """Write an MLflow model with its reference sample and facts; returns the files' digests."""
    import mlflow.sklearn
    from mlflow.models import Model

    model = Model(
        artifact_path=logged.artifact_location,
        run_id=run_id,
        model_uuid=logged.model_id,
        model_id=logged.model_id,
    )
    with _without_pickle_warning():
        mlflow.sklearn.save_model(
            trained.estimator,
            path=folder,
            mlflow_model=model,
            serialization_format="cloudpickle",
            signature=describe_signature(trained),
            input_example=trained.reference[list(_fitted(trained))].head(EXAMPLE_ROWS),
            pip_requirements=requirements(use_case),
            pyfunc_predict_fn="predict_proba" if trained.classes else "predict",
            metadata={"use_case": use_case.name, "cutoff": trained.cutoff.isoformat()},
        )
    trained.reference.to_parquet(folder / REFERENCE, index=False)
    facts = {**_facts(trained), "environment": environment(requirements(use_case))}
    (folder / FACTS).write_text(json.dumps(facts, indent=1), encoding="utf-8")
    return {name: digest_of((folder / name).read_bytes()) for name in DIGESTED}


def read_reference(folder: Path) -> pd.DataFrame:
    """The reference sample among the files of a version.

    By its path: `pandas.read_parquet` hands pyarrow a file object of Python, which a thread may
    still let go of while the interpreter ends, and the process aborts after it did its work
    (https://github.com/apache/arrow/issues/34314).
    """
    frame: pd.DataFrame = pq.read_table(folder / REFERENCE).to_pandas()
    return frame


def write_origins(folder: Path, use_case: UseCase, trained: TrainedModel) -> None:
    """Write what the model was made from, and pictures of how good it is."""
    origins = folder / "use_case"
    (origins / "features").mkdir(parents=True)
    files = [SPEC_FILE, use_case.model_file]
    texts = {file: (use_case.folder / file).read_text(encoding="utf-8") for file in files}
    texts["resolved.json"] = json.dumps(use_case.document, indent=1)
    texts["labels.sql"] = use_case.label.query + "\n"
    texts |= {f"features/{name}.sql": view.query + "\n" for name, view in use_case.features.items()}
    for file, text in texts.items():
        (origins / file).write_text(text, encoding="utf-8")
    plots = folder / "plots"
    plots.mkdir()
    for name, image in trained.plots.items():
        (plots / f"{name}.png").write_bytes(image)


def fetch_files(entry: "RegisteredVersion", folder: str, settings: Settings, *files: str) -> None:
    """Bring files of a registered version to a folder; ArtifactLost where one is missing."""
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    location = str(entry.source).rstrip("/")
    for file in files:
        try:
            download_artifacts(
                artifact_uri=f"{location}/{file}",
                dst_path=folder,
                tracking_uri=settings.tracking_uri,
            )
        except (MlflowException, OSError) as error:
            if not MISSING.search(str(error)):
                raise
            raise ArtifactLost(
                f"{entry.name} version {entry.version}: {file} is missing from "
                f"{masked(location, settings)}; `ml-platform repair --backup …` brings it back "
                "from a backup; without one, train at its cutoff again, or let another version "
                "serve"
            ) from None


def read_files(folder: Path, name: str, digests: dict[str, str]) -> dict[str, bytes]:
    """The files of a model version as they were registered; ModelRefused where one was changed."""
    contents = {file: (folder / file).read_bytes() for file in DIGESTED}
    for file, content in contents.items():
        found, recorded = digest_of(content), digests.get(file)
        if found != recorded:
            raise ModelRefused(
                f"{name}: {file} has digest {found[:12]}, {(recorded or 'none')[:12]} was recorded "
                "when it was registered; it was changed since, so it is not loaded. Restore it "
                "(ml-platform repair --backup …), or train the version again"
            )
    return contents


def read_model(folder: Path, name: str, digests: dict[str, str]) -> dict[str, Any]:
    """Fields of a ModelVersion from its files.

    Unpickling runs code, so nothing is unpickled that this platform did not register. Raises
    ModelRefused where a file was changed, ModelOutdated where one lacks what it has to hold,
    EnvironmentDiffers where it was trained with other software than is installed, and that matters.
    """
    contents = read_files(folder, name, digests)
    import cloudpickle

    facts = json.loads(contents[FACTS])
    if lacking := sorted(NEEDED - facts.keys()):
        raise ModelOutdated(
            f"{name} lacks {', '.join(lacking)} in {FACTS}: older code registered it. Train it "
            "again, or let a version serve that was trained since: `ml-platform train`, "
            "`ml-platform rollback`"
        )
    if differs := require_environment(name, facts["environment"]):
        LOGGER.warning("%s was trained in another environment: %s", name, ", ".join(differs))
    return {
        "estimator": cloudpickle.loads(contents[ESTIMATOR]),
        "digest": digests[ESTIMATOR],
        "reference": read_reference(folder),
        "cutoff": datetime.fromisoformat(facts["cutoff"]),
        "snapshot": facts["snapshot"],
        "trained_from": datetime.fromisoformat(facts["trained_from"]),
        "trained_until": datetime.fromisoformat(facts["trained_until"]),
        "columns": facts["columns"],
        "classes": tuple(facts["classes"]),
        "metrics": facts["metrics"],
        "seen": {
            column: SeenColumn(missing, None if texts is None else frozenset(texts))
            for column, (missing, texts) in facts["seen"].items()
        },
        "importances": facts["importances"],
        "left_out": frozenset(facts.get("left_out", ())),
        "too_good": facts.get("too_good", ""),
    }


def describe_signature(trained: TrainedModel) -> "ModelSignature":
    """Columns in and array out, for MLflow's UI and for anyone who loads the model with MLflow."""
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    inputs: list[ColSpec | TensorSpec] = [
        ColSpec("double" if is_numeric(kind) else "string", name=column, required=False)
        for column, kind in _fitted(trained).items()
    ]
    shape = (-1, len(trained.classes)) if trained.classes else (-1,)
    return ModelSignature(Schema(inputs), Schema([TensorSpec(np.dtype("float64"), shape)]))


def _facts(trained: TrainedModel) -> dict[str, Any]:
    return {
        "cutoff": trained.cutoff.isoformat(),
        "snapshot": trained.snapshot,
        "trained_from": trained.trained_from.isoformat(),
        "trained_until": trained.trained_until.isoformat(),
        "fingerprint": trained.fingerprint,
        "columns": dict(trained.columns),
        "classes": list(trained.classes),
        "metrics": dict(trained.metrics),
        "seen": {
            column: [seen.missing, None if seen.categories is None else sorted(seen.categories)]
            for column, seen in trained.seen.items()
        },
        "importances": dict(trained.importances),
        "left_out": sorted(trained.left_out),
        "too_good": trained.too_good,
    }


def _fitted(trained: TrainedModel) -> dict[str, str]:
    return fitted_columns(trained.columns, trained.left_out)


@contextlib.contextmanager
def _without_pickle_warning() -> Iterator[None]:
    # MLflow warns on every save that unpickling runs code; `read_model` is the answer to that.
    def is_other(entry: logging.LogRecord) -> bool:
        return "requires exercising" not in entry.getMessage()

    logger = logging.getLogger("mlflow.sklearn")
    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)

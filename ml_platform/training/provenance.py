"""What decides a model besides its data: code, libraries, threads."""

import platform
from pathlib import Path
from typing import Any

from ml_platform.registry.artifacts import digest_of, requirements
from ml_platform.spec.code import code_state
from ml_platform.spec.environments import LOCK as OWN_LOCK
from ml_platform.spec.use_case import UseCase, digest

LOCK = Path("requirements", "base.txt")
MOST_ESTIMATOR_PARAMETERS = 60


def fingerprint(use_case: UseCase, cutoff: str, data: str, threads: int) -> str:
    """Digest that is the same where the same model would come out."""
    libraries = requirements(use_case)
    python = platform.python_version()
    return digest(use_case.code_version, cutoff, data, threads, libraries, python)


def describe_code(folder: Path) -> dict[str, str]:
    """Tags for the git commit a folder is at and for its lock file; none where there is no git.

    `mlflow.source.git.commit` is what MLflow's UI shows; `git.dirty` says whether files differ
    from it.
    """
    state = code_state(folder)
    if state is None:
        return {}
    tags = {"mlflow.source.git.commit": state.commit, "git.dirty": str(state.is_dirty).lower()}
    locks = (folder / OWN_LOCK, state.root / LOCK)
    if lock := next((each for each in locks if each.is_file()), None):
        tags["requirements.sha256"] = digest_of(lock.read_bytes())
    return tags


def describe_parameters(use_case: UseCase, estimator: Any, threads: int) -> dict[str, str]:
    """The spec's choices and the estimator's plain parameters, for MLflow to compare runs by."""
    spec = {f"model.{name}": str(value) for name, value in use_case.document["model"].items()}
    plain = {
        f"estimator.{name}": str(value)
        for name, value in sorted(estimator.get_params(deep=True).items())
        if value is None or isinstance(value, bool | int | float | str)
    }
    shown = dict(list(plain.items())[:MOST_ESTIMATOR_PARAMETERS])
    about = {"task": use_case.label.task, "threads": str(threads)}
    return {**spec, **about, "estimator": type(estimator).__name__, **shown}

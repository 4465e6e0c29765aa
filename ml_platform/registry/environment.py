"""The Python environment that a model version was trained in, against the one that loads it.

An estimator is kept as a pickle: other code than it was fitted by may refuse it, or predict
otherwise without a word.
"""

import platform
from collections.abc import Sequence
from importlib import metadata

from ml_platform.errors import EnvironmentDiffers

PYTHON = "python"
DECISIVE = {
    PYTHON: "functions of model.py are kept as byte code, which is another in each minor version",
    "scikit-learn": "it neither promises to read its estimators in another minor version nor "
    "that they predict the same",
}
"""Distributions whose minor version has to be the same, and why."""


def environment(requirements: Sequence[str]) -> list[str]:
    """Requirements with the version of Python that they are installed for."""
    return [f"{PYTHON}=={platform.python_version()}", *requirements]


def require_environment(name: str, trained_in: Sequence[str]) -> tuple[str, ...]:
    """What differs here from the environment that a version was trained in, a phrase each.

    name: of the version, for the message; trained_in: as `environment` says. Raises
    EnvironmentDiffers where a difference is known to matter.
    """
    pairs = [tuple(each.split("==")) for each in trained_in]
    differing = [(each, then, now) for each, then in pairs if (now := _installed(each)) != then]
    for each, then, now in differing:
        if each in DECISIVE and _minor(then) != _minor(now):
            raise EnvironmentDiffers(
                f"{name} was trained with {each} {then}, here is {now}: {DECISIVE[each]}. "
                f"Load it where {each} {_minor(then)} is installed, or train it again here"
            )
    return tuple(f"{each} {now or 'is missing'} instead of {then}" for each, then, now in differing)


def _installed(distribution: str) -> str | None:
    if distribution == PYTHON:
        return platform.python_version()
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _minor(version: str | None) -> str:
    return ".".join((version or "").split(".")[:2])

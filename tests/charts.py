"""The Helm chart of `deploy/helm`, rendered as `helm template` does it."""

import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
CHART = ROOT / "deploy" / "helm" / "ml-platform"
RELEASE = "ml-platform"
SETS = ("", *sorted(file.stem for file in (CHART / "examples").glob("*.yaml")))
"""The chart's own values, and those of its examples."""
HELM = shutil.which("helm")
needs_helm = pytest.mark.skipif(HELM is None, reason="helm is not installed; see .ci/run")


def template(*arguments: str, chart: Path = CHART) -> "subprocess.CompletedProcess[str]":
    assert HELM is not None
    command = [HELM, "template", RELEASE, str(chart), "--namespace", "ml", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@cache
def rendered(values: str = "") -> tuple[dict[str, Any], ...]:
    """The manifests with the values of one of SETS."""
    chosen = ["--values", str(CHART / "examples" / f"{values}.yaml")] if values else []
    done = template(*chosen)
    assert done.returncode == 0, done.stderr
    return tuple(document for document in yaml.safe_load_all(done.stdout) if document)


def find(kind: str, name: str, values: str = "") -> dict[str, Any]:
    """One manifest, by its kind and its name after the release's."""
    found = [
        each
        for each in rendered(values)
        if each["kind"] == kind and each["metadata"]["name"] == f"{RELEASE}-{name}".rstrip("-")
    ]
    assert len(found) == 1, (kind, name, len(found))
    return found[0]


def pods(values: str = "") -> dict[str, dict[str, Any]]:
    """Templates of pods, by kind and name of what makes them."""
    return {
        f"{each['kind']}/{each['metadata']['name']}": each["spec"]["template"]
        for each in rendered(values)
        if each["kind"] in {"Deployment", "StatefulSet", "Job"}
    }


def instance(values: str = "") -> dict[str, Any]:
    """dagster.yaml."""
    return dict(yaml.safe_load(find("ConfigMap", "dagster", values)["data"]["dagster.yaml"]))

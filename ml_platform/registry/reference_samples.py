"""Rows taken out of the reference sample of a registered version, and of MLflow's example of it."""

import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from ml_platform.errors import RegistryError
from ml_platform.registry.artifacts import (
    EXAMPLE_ROWS,
    REFERENCE,
    digest_of,
    fetch_files,
    read_reference,
)
from ml_platform.registry.models import DIGESTS, Registry
from ml_platform.registry.tracking import open_client
from ml_platform.spec.use_case import UseCase

LOGGED_MODEL = re.compile(r"/models/(m-[^/]+)/artifacts")
EXAMPLES = ("input_example.json", "serving_input_example.json")


def take_from_reference(
    registry: Registry,
    use_case: UseCase,
    version: int,
    is_gone: Callable[[pd.DataFrame], "pd.Series[bool]"],
    *,
    dry_run: bool = False,
) -> int:
    """Register the reference sample of a version again without some rows; how many those are.

    The digest comes first: whoever is killed before the files follow leaves a version that is
    refused until the same is done again.
    """
    client = open_client(registry.settings)
    entry = client.get_model_version(use_case.name, str(version))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        fetch_files(entry, temporary, registry.settings, REFERENCE, *EXAMPLES)
        reference = read_reference(folder)
        gone = is_gone(reference)
        count = int(gone.sum())
        if not count or dry_run:
            return count
        reference[~gone].to_parquet(folder / REFERENCE, index=False)
        # The example is the beginning of the sample.
        kept = [not each for each in gone.head(EXAMPLE_ROWS)]
        for name in EXAMPLES:
            document = json.loads((folder / name).read_text(encoding="utf-8"))
            _drop(document.get("dataframe_split", document), kept)
            (folder / name).write_text(json.dumps(document), encoding="utf-8")
        digests = json.loads(entry.tags[DIGESTS])
        digests[REFERENCE] = digest_of((folder / REFERENCE).read_bytes())
        client.set_model_version_tag(use_case.name, str(version), DIGESTS, json.dumps(digests))
        client.log_model_artifacts(_logged_model(str(entry.source)), temporary)
    return count


def _logged_model(source: str) -> str:
    """The id of the logged model whose artifacts are at a location."""
    found = LOGGED_MODEL.search(source)
    if found is None:
        raise RegistryError(f"{source} is no place of a logged model; train the version again")
    return found[1]


def _drop(example: dict[str, Any], kept: list[bool]) -> None:
    """Leave out rows of an example as pandas writes it, `split`."""
    for name in ("data", "index"):
        if name in example:
            example[name] = [v for v, keep in zip(example[name], kept, strict=False) if keep]

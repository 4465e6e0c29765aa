"""Facts of a registered version that are others than were registered, with their digest."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_platform.registry import Registry
from ml_platform.registry.artifacts import FACTS, digest_of
from ml_platform.spec.use_case import UseCase


def change_facts(
    registry: Registry, use_case: UseCase, version: int, change: Callable[[dict[str, Any]], object]
) -> None:
    """Change the facts of a version in place, as if they had been registered like that."""
    entry = registry._client.get_model_version(use_case.name, str(version))
    file = Path(entry.source.removeprefix("file://"), FACTS)
    facts = json.loads(file.read_bytes())
    change(facts)
    file.write_text(json.dumps(facts))
    digests = {**json.loads(entry.tags["digests"]), FACTS: digest_of(file.read_bytes())}
    registry._client.set_model_version_tag(
        use_case.name, str(version), "digests", json.dumps(digests)
    )

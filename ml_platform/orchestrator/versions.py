"""Code locations as versions of pipelines: each runs one commit, and says which."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml_platform.orchestrator import queries
from ml_platform.orchestrator.answers import known
from ml_platform.orchestrator.parameters import KEPT, PIPELINES, VERSION

UNKNOWN = "unknown"


@dataclass(frozen=True)
class CodeLocation:
    """What one code location says of a use case."""

    name: str
    repository: str
    version: str | None
    """Commit of its code, with `-dirty` behind it where files differ; None where it is unknown."""
    is_kept: bool
    """Whether it is there for its version alone."""
    tables: frozenset[str]
    """Names without the use case."""
    pipelines: Mapping[str, Any]
    """What it declares of each pipeline, as plain data."""

    @property
    def selector(self) -> Mapping[str, str]:
        """How Dagster knows which one is meant."""
        return {"repositoryName": self.repository, "repositoryLocationName": self.name}

    def is_version(self, asked: str) -> bool:
        """Whether this is the version of a commit, or of the beginning of its name."""
        return self.version is not None and (
            self.version == asked
            # The beginning of a commit does not name a version with changes.
            or ("-" not in self.version and self.version.startswith(asked))
        )

    @classmethod
    def read(
        cls, use_case: str, repository: str, name: str, nodes: Sequence[Mapping[str, Any]]
    ) -> "CodeLocation":
        """A code location from the assets that it has of a use case."""
        labels: dict[str, str] = {}
        for node in nodes:
            for entry in node["metadataEntries"]:
                if entry["label"] in {VERSION, PIPELINES} and "text" in entry:
                    labels[entry["label"]] = entry["text"]
        version = labels.get(VERSION, UNKNOWN)
        return cls(
            name=name,
            repository=repository,
            version=None if version == UNKNOWN else version,
            is_kept=any(tag["key"] == KEPT for node in nodes for tag in node["tags"]),
            tables=frozenset("/".join(node["assetKey"]["path"][1:]) for node in nodes),
            pipelines=json.loads(labels.get(PIPELINES, "{}")),
        )


def read_locations(post: Callable[..., Mapping[str, Any]], use_case: str) -> list[CodeLocation]:
    """Code locations that have a use case, the current version first; post: asks Dagster."""
    said = known(post(queries.REPOSITORIES)["repositoriesOrError"], "RepositoryConnection")
    found = []
    for repository in said["nodes"]:
        name, location = repository["name"], repository["location"]["name"]
        group = {
            "groupName": use_case,
            "repositoryName": name,
            "repositoryLocationName": location,
        }
        if nodes := post(queries.GROUP, {"group": group})["assetNodes"]:
            found.append(CodeLocation.read(use_case, name, location, nodes))
    return sorted(found, key=lambda each: (each.is_kept, each.name))

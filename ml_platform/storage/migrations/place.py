"""What migrations look at and change."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import duckdb

from ml_platform.settings import Settings
from ml_platform.spec.windows import Calendar


@dataclass(frozen=True)
class Place:
    """A deployment, as far as migrations need it."""

    settings: Settings
    cursor: duckdb.DuckDBPyConnection
    """Of the lake; within a transaction where a step of the lake is run."""
    calendars: Mapping[str, Calendar] = field(default_factory=dict)
    """Those that use cases declare now, by name."""


@dataclass(frozen=True)
class MigrationStep:
    """One change, which is made as a whole or not at all and then is no step any more."""

    what: str
    run: Callable[[Place], None]
    is_in_lake: bool = True
    """Whether a step of the lake is part of one of its transactions."""

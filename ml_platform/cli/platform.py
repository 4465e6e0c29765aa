"""What every command works with: settings, use cases, lake and registry."""

import os
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

from ml_platform.access import Action, Audit
from ml_platform.backfill.request import with_examples
from ml_platform.cli.elsewhere import continue_where_it_runs
from ml_platform.errors import EmptyPartition, PlatformError, Unavailable
from ml_platform.features import OnlineStore, open_online_store
from ml_platform.masking import named_variables
from ml_platform.registry import Registry, repair
from ml_platform.settings import ServingSettings, Settings
from ml_platform.spec.loading import Loaded, load_use_cases, require_use_case
from ml_platform.spec.ranges import named_partition, named_range
from ml_platform.spec.tables import code_version, tables_of
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake


@dataclass(frozen=True)
class Platform:
    """One deployment, opened as far as a command needs it."""

    settings: Settings
    is_upgrading: bool = False
    """Whether what an older release wrote is taken as it is."""

    @cached_property
    def lake(self) -> Lake:
        return Lake(self.settings, is_upgrading=self.is_upgrading)

    @cached_property
    def registry(self) -> Registry:
        return Registry(self.settings)

    @cached_property
    def store(self) -> OnlineStore:
        return open_online_store(self.settings)

    @cached_property
    def loaded(self) -> Loaded:
        settings = self.settings
        return load_use_cases(settings.use_cases, settings.databases, settings.derived)

    def case(self, name: str, *, anywhere: bool = False) -> UseCase:
        """A use case, for a command that works with it; what mirrors its lake is repaired first.

        anywhere: whether the command runs none of its code and loads none of its models. Others
        begin again in the use case's environment, where it has one of its own.
        """
        settings = self.settings
        found = require_use_case(settings.use_cases, name, settings.databases, settings.derived)
        if not anywhere:
            continue_where_it_runs(settings, found)
        return self._repaired(found)

    def cases(self, name: str | None) -> list[UseCase]:
        """As `case`, of commands that run anywhere; all use cases where none is named."""
        if name:
            return [self.case(name, anywhere=True)]
        return [self._repaired(each) for each in self.loaded.use_cases.values()]

    def _repaired(self, use_case: UseCase) -> UseCase:
        for difference in repair(self.lake, self.registry, use_case):
            done = "" if difference.problem else ": repaired"
            print(f"{use_case.name}: {difference}{done}", file=sys.stderr)
        return use_case

    @cached_property
    def run_id(self) -> str:
        """What the lake's snapshots say of this invocation."""
        return f"cli-{uuid.uuid4().hex[:8]}"

    @property
    def person(self) -> str:
        """Who is at the keyboard, as far as the environment says."""
        return os.environ.get("USER") or os.environ.get("USERNAME") or "command line"

    def commit(self, use_case: UseCase, table: str, action: Action | None = None) -> Commit:
        """The commit of a command that writes a table.

        action: what the command does, if that is to stand in the audit with it.
        """
        windowed = table in tables_of(use_case)
        version = code_version(use_case, table) if windowed else use_case.code_version
        also = None if action is None else Audit(self.lake).along(action)
        return Commit(self.run_id, version, f"{use_case.name}/{table}", also=also)

    def platform_commit(self, table: str) -> Commit:
        """The commit of a command that writes a table of the platform's own."""
        return Commit(self.run_id, "", f"platform/{table}")

    def action(self, what: str, use_case: str, changed: str, **details: str) -> Action:
        """What the person at the keyboard does; see `ml_platform.access.Action`."""
        return Action(self.person, "cli", what, use_case, changed, details)

    def audit(self, what: str, use_case: str, changed: str, **details: str) -> None:
        """Record what this command is about to do, where that is no single write to the lake.

        Before it is done: who kills the command halfway has done something as well.
        """
        action = self.action(what, use_case, changed, **details, run=self.run_id)
        Audit(self.lake).record(action, self.platform_commit("audit"))

    def audit_tables(
        self, what: str, use_case: UseCase, window_range: Window, *tables: str
    ) -> None:
        """As `audit`, of a command that computes tables of a range."""
        self.audit(what, use_case.name, ", ".join(tables), range=str(window_range))


@contextmanager
def opened(*, is_upgrading: bool = False) -> Iterator[Platform]:
    """The platform of the environment's settings, closed at the end."""
    platform = Platform(read_settings(), is_upgrading)
    try:
        yield platform
    except Unavailable as error:
        # A command that has written something would write it twice.
        error.is_final = error.is_final or platform.lake.has_written
        raise
    finally:
        platform.lake.close()


def read_settings() -> Settings:
    """Settings from the environment; PlatformError names the variable that is wrong."""
    with named_variables("ML_PLATFORM_"):
        return Settings()


def read_serving_settings(**chosen: int | None) -> ServingSettings:
    """As `read_settings`, for the prediction service; what was chosen comes first."""
    with named_variables("ML_PLATFORM_SERVING_"):
        return ServingSettings.model_validate(
            {**ServingSettings().model_dump(), **{k: v for k, v in chosen.items() if v is not None}}
        )


def range_of(
    platform: Platform, use_case: UseCase, partition: str | None, window_range: str | None
) -> Window:
    """The windows that `--partition K` or `--range A...B` names, B included.

    Where neither is given, all from the first window on to the last that has examples. Raises
    PlatformError where there is no such partition.
    """
    return _named(use_case, partition, window_range) or with_examples(platform.lake, use_case)


def landing_range_of(use_case: UseCase, partition: str | None, window_range: str | None) -> Window:
    """As `range_of`; where neither is given all windows up to now, whatever has landed."""
    if named := _named(use_case, partition, window_range):
        return named
    calendar, now = use_case.calendar, datetime.now(UTC)
    end = use_case.partitions.closes_at or calendar.window_at(now).end
    if end.astimezone(UTC) <= calendar.start.astimezone(UTC):
        raise PlatformError(f"{use_case.name} has no partitions before {calendar.start}")
    return Window(calendar.start, end)


def _named(use_case: UseCase, partition: str | None, window_range: str | None) -> Window | None:
    if partition and window_range:
        raise PlatformError("--partition and --range exclude each other; give one of them")
    if partition:
        return named_partition(use_case, partition)
    if window_range:
        return named_range(use_case, window_range, f"--range {window_range}")
    return None


def moment_of(use_case: UseCase, key: str) -> datetime:
    """Start of the partition of a key."""
    return named_partition(use_case, key).start


def entity_of(use_case: UseCase, pairs: Sequence[str]) -> dict[str, str]:
    """Key columns and values from `column=value` texts; one value will do for a single column."""
    names = use_case.examples.entity
    if len(pairs) == len(names) == 1 and "=" not in pairs[0]:
        return {names[0]: pairs[0]}
    found = dict(pair.partition("=")[::2] for pair in pairs)
    if found.keys() != set(names):
        wanted = " ".join(f"{name}=…" for name in names)
        raise EmptyPartition(f"{use_case.name}: an example is named by {wanted}")
    return found

"""Erasing an entity: every row of it, in everything that a deployment keeps.

What is found by what comes last. Rows that belong to the entity only through others (a prediction
of its example, feedback on that prediction) go before those by which they are found, or in the same
transaction: whoever is killed in between finds the rest with the same command.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import duckdb

from ml_platform.erasure.bytes_left import files_with
from ml_platform.erasure.databases import vacuum_catalog, vacuum_files
from ml_platform.erasure.entity import Entity, key_columns
from ml_platform.erasure.lake_rows import data_files, find_rows, learn_links
from ml_platform.erasure.landing_files import (
    FileRows,
    find_landed,
    order_of_sources,
    rewrite_landed,
)
from ml_platform.erasure.landing_notes import note_rewritten
from ml_platform.erasure.leftovers import erase_leftovers, flush_inlined
from ml_platform.erasure.matching import Matching
from ml_platform.erasure.online_rows import forget_online
from ml_platform.erasure.open_files import blank_lines
from ml_platform.erasure.samples import erase_from_samples
from ml_platform.erasure.trained import versions_trained_on, windows_of
from ml_platform.errors import ErasureRefused
from ml_platform.features import OnlineStore
from ml_platform.registry import Registry
from ml_platform.sources.listing import landing_glob, list_landing
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Commit, Lake
from ml_platform.storage.renaming import delete_at_once
from ml_platform.storage.rewriting import Erasing, rewrite_without

MOST_ROUNDS = 10
"""So often the lake is looked through again, as others write to it meanwhile."""
Say = Callable[[str], None]


@dataclass
class Erased:
    """What was found of an entity in one use case, and erased unless it was only looked for."""

    use_case: str
    tables: dict[str, int] = field(default_factory=dict)
    """Rows in data files, by table; a row that several snapshots read in several files counts for
    each of them."""
    files: int = 0
    """Data files that were written again."""
    leftovers: int = 0
    """Files that no snapshot reads."""
    landing: dict[str, dict[str, int]] = field(default_factory=dict)
    """Rows in landing files, by source and file."""
    waiting: dict[str, int] = field(default_factory=dict)
    """Rows that the service has written and that had not landed, by source."""
    online: dict[str, int] = field(default_factory=dict)
    """Entities in the online store, by view."""
    samples: dict[int, int] = field(default_factory=dict)
    """Rows in the reference samples of model versions."""
    trained: tuple[int, ...] = ()
    """Model versions whose training set may have held rows of it."""
    beyond: tuple[str, ...] = ()
    """What may hold rows of it and is not the platform's to change."""

    @property
    def is_empty(self) -> bool:
        found = (self.tables, self.leftovers, self.landing, self.waiting, self.online, self.samples)
        return not any(found)


@dataclass(frozen=True)
class Erasure:
    """What erasing an entity came to."""

    use_cases: tuple[Erased, ...]
    snapshots: tuple[int, ...] = ()
    """Snapshots of the lake that say that rows were erased."""
    problems: tuple[str, ...] = ()
    """What could not be done; the rest was."""

    @property
    def is_empty(self) -> bool:
        return all(each.is_empty for each in self.use_cases)


@dataclass(frozen=True)
class Deployment:
    """Where an entity may be."""

    lake: Lake
    registry: Registry
    store: OnlineStore
    use_cases: Mapping[str, UseCase]
    log_secret: bytes | None = None
    """Key of the hashes in the request log."""


def erase(
    deployment: Deployment,
    use_case: UseCase,
    entity: Entity,
    commit: Commit,
    say: Say,
    *,
    dry_run: bool = False,
) -> Erasure:
    """Erase an entity of a use case, and of others that read the same landing files or tables.

    dry_run: only look. Raises ErasureRefused, LakeError, LandingError or OnlineStoreError; the same
    call then does the rest.
    """
    found, snapshots, problems = [], [], []
    lake = deployment.lake
    for case in [use_case, *_sharing(deployment, use_case, entity)]:
        with lake.cursor(case.timezone) as cursor:
            matching = Matching(cursor, case, entity, deployment.log_secret)
            work = _UseCaseErasure(deployment, matching, commit, say, dry_run)
            found.append(work.everything())
            snapshots += work.snapshots
            problems += work.problems
    if not dry_run:
        with lake.cursor() as cursor:
            delete_at_once(lake, cursor)
        problems += vacuum_catalog(lake)
        # An open catalog keeps its journal, and what that holds.
        lake.close()
        deployment.store.close()
        problems += vacuum_files(lake.settings)
        say("reading every file")
        problems += [f"{path} still has it" for path in files_with(lake.settings, entity)]
    return Erasure(tuple(found), tuple(snapshots), tuple(problems))


@dataclass
class _UseCaseErasure:
    """One use case that an entity is erased from."""

    deployment: Deployment
    matching: Matching
    commit: Commit
    say: Say
    dry_run: bool
    snapshots: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.erased = Erased(self.case.name)

    @property
    def case(self) -> UseCase:
        return self.matching.use_case

    @property
    def cursor(self) -> duckdb.DuckDBPyConnection:
        return self.matching.cursor

    def everything(self) -> Erased:
        """Erase the entity from one place after the other; what was found."""
        lake, erased = self.deployment.lake, self.erased
        self.say(f"{self.case.name}: looking through the lake")
        if not self.dry_run:
            flush_inlined(lake, self.cursor, self.case.name)
        tables = data_files(lake, self.cursor, self.case.name)
        learn_links(self.matching, tables)
        windows = windows_of(self.matching, tables)
        trained = versions_trained_on(lake, self.deployment.registry, self.matching, windows)
        erased.trained = tuple(each.version for each in trained)
        erased.beyond = _beyond(self.case)
        self.problems += [
            f"{self.case.name}: rows of the request log whose {column} is hashed are only found by "
            "the key of the hashes: set ML_PLATFORM_SERVING_LOG_SECRET as the service has it"
            for column in sorted(self.matching.unreadable)
        ]
        self.say(f"{self.case.name}: landing")
        erased.waiting = blank_lines(lake.settings, self.matching, dry_run=self.dry_run)
        self._landing()
        self.say(f"{self.case.name}: reference samples of model versions")
        examples = windows.get(self.case.examples.source, {})
        erased.samples, problems = erase_from_samples(
            lake, self.deployment.registry, self.matching, {*examples}, dry_run=self.dry_run
        )
        self.problems += problems
        self.say(f"{self.case.name}: the online store")
        erased.online = forget_online(self.deployment.store, self.matching, dry_run=self.dry_run)
        self._lake()
        if not self.dry_run:
            delete_at_once(lake, self.cursor)
        erased.leftovers, problems = erase_leftovers(
            lake, self.cursor, self.matching, dry_run=self.dry_run
        )
        self.problems += problems
        if not self.dry_run and erased.online:
            # Who read the lake before may have published since.
            forget_online(self.deployment.store, self.matching, dry_run=False)
        return erased

    def _landing(self) -> None:
        lake = self.deployment.lake
        found: list[FileRows] = []
        sources = order_of_sources(self.case)
        # Sources by whose rows others are found come last, and are looked at first.
        for source in reversed(sources):
            found += find_landed(lake, self.matching, source)
        for each in found:
            self.erased.landing.setdefault(each.source, {})[each.file.name] = len(each.numbers)
        if self.dry_run:
            return
        for each in sorted(found, key=lambda each: sources.index(each.source)):
            rewrite_landed(self.cursor, each)
        note_rewritten(lake, self.cursor, self.case, found, self.commit)

    def _lake(self) -> None:
        """Erase the rows of the lake until no more are found, as others may write some."""
        lake = self.deployment.lake
        for number in range(MOST_ROUNDS):
            rows = find_rows(self.matching, data_files(lake, self.cursor, self.case.name))
            if number == 0 or not self.dry_run:
                for file, positions in rows.items():
                    before = self.erased.tables.get(file.table, 0)
                    self.erased.tables[file.table] = before + len(positions)
                self.erased.files += len(rows)
            if self.dry_run or not rows:
                return
            self.say(f"{self.case.name}: {len(rows):,} data files are written again")
            snapshot = rewrite_without(lake, Erasing(rows), self.commit)
            if snapshot is not None:
                self.snapshots.append(snapshot)
        raise ErasureRefused(
            f"{self.case.name}: rows of the entity keep being written; stop what writes them, then "
            "do the same again"
        )


def _beyond(use_case: UseCase) -> tuple[str, ...]:
    """What others own that the use case reads or writes."""
    found = [
        f"{declared.lands_as}, which source {name} is read from"
        for name, declared in use_case.sources.items()
        if not declared.files
    ]
    found += [f"what publication {name} has written to others" for name in use_case.publish]
    return tuple(found)


def _sharing(deployment: Deployment, use_case: UseCase, entity: Entity) -> Sequence[UseCase]:
    """Other use cases with the same key, one of whose sources lands where one of this one does."""
    own = _lands(deployment.lake, use_case)
    return [
        case
        for name, case in sorted(deployment.use_cases.items())
        if name != use_case.name
        and {*entity.columns} <= key_columns(case).keys()
        and not own.isdisjoint(_lands(deployment.lake, case))
    ]


def _lands(lake: Lake, use_case: UseCase) -> frozenset[str]:
    found: set[str] = set()
    for name, source in use_case.sources.items():
        if source.files:
            found |= {file.path for file in list_landing(lake, use_case, name)}
        else:
            found.add(landing_glob(lake, use_case, name))
    return frozenset(found)

"""Which rows are an entity's, as SQL over whatever columns a table, a file or a record has.

A row is the entity's that has all of its key columns with its values, or with the hashes that stand
for these in the request log. So is what belongs to one of its examples: a row with the example's
own entity, and what names one of its predictions.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product

import duckdb

from ml_platform.erasure.entity import Entity, key_columns
from ml_platform.spec.logged import hashed_value
from ml_platform.spec.queries import is_numeric, literal, quote
from ml_platform.spec.use_case import UseCase

PREDICTION_ID = "prediction_id"
EVENT_TIME = "event_time"
TEXT = "text"
"""In a record of quarantine, the line that could not be parsed."""
IDS, EXAMPLES = "temp.__erased_predictions", "temp.__erased_examples"
Find = Callable[[str], "tuple[str, str] | None"]
"""SQL and type of the value of a column; None where there is no such column."""


@dataclass
class Matching:
    """What is an entity's of one use case, on one cursor, whose time zone is the use case's."""

    cursor: duckdb.DuckDBPyConnection
    use_case: UseCase
    entity: Entity
    log_secret: bytes | None = None
    """Key of the hashes in the request log; without it no row is found by one."""
    examples: set[tuple[str, ...]] = field(default_factory=set)
    """Entities of its examples, as texts; the last of each is the event time."""
    predictions: set[str] = field(default_factory=set)
    """Ids of what was predicted of it."""

    def __post_init__(self) -> None:
        self._declare()

    @property
    def unreadable(self) -> frozenset[str]:
        """Columns that rows of the request log cannot be found by, as the key of hashes lacks."""
        named = {*self.entity.columns, *self.use_case.examples.entity}
        return frozenset() if self.log_secret else self._hashed & named

    @property
    def names_rows(self) -> bool:
        """Whether the entity of an example alone names a row of their source."""
        examples = self.use_case.examples
        return {*examples.entity} >= {*self.use_case.sources[examples.source].key}

    @property
    def time_of_examples(self) -> str:
        """Column of the source of examples with their event time."""
        return self.use_case.sources[self.use_case.examples.source].event_time

    @property
    def has_examples(self) -> bool:
        """Whether rows of the source of examples say whose they are."""
        source = self.use_case.sources[self.use_case.examples.source]
        return {*self.entity.columns} <= {*source.columns}

    def learn(self, examples: Iterable[tuple[str, ...]], predictions: Iterable[str] = ()) -> None:
        """Take in examples of the entity, and ids of predictions of it."""
        self.examples.update(examples)
        self.predictions.update(predictions)
        self._declare()

    def of_columns(self, columns: Mapping[str, str], prefix: str = "") -> str | None:
        """SQL that holds for its rows, from names and types of columns; None where none can be."""
        return self._where(
            lambda name: (prefix + quote(name), columns[name]) if name in columns else None
        )

    def of_record(self, record: str) -> str:
        """SQL that holds for JSON texts of its records, or of lines that it may be named in."""
        alike = self._where(
            lambda name: (
                f"json_extract_string({record}, {literal(_json_path(name))})",
                "VARCHAR",
            )
        )
        line = f"json_extract_string({record}, '$.{TEXT}')"
        is_line = f"json_array_length(json_keys({record})) = 1 AND {line} IS NOT NULL"
        return f"(({alike}) OR ({is_line} AND {self.of_line(line)}))"

    def of_line(self, line: str) -> str:
        """SQL that holds for lines without columns in which every value stands as a word."""
        return " AND ".join(
            f"regexp_matches({line}, {literal(_word(value))})"
            for value in self.entity.values.values()
        )

    def of_moments(self, columns: Mapping[str, str]) -> str:
        """SQL of an example's entity and event time, as `learn` takes them, over its source."""
        listed = [f"CAST({quote(c)} AS VARCHAR)" for c in self.use_case.examples.entity]
        time = self.time_of_examples if self.time_of_examples in columns else EVENT_TIME
        return f"{', '.join(listed)}, CAST(CAST({quote(time)} AS TIMESTAMPTZ) AS VARCHAR)"

    def _where(self, find: Find) -> str | None:
        parts = [self._own(find), self._of_examples(find), self._of_predictions(find)]
        known = [f"({part})" for part in parts if part is not None]
        return f"({' OR '.join(known)})" if known else None

    def _own(self, find: Find) -> str | None:
        found = [(column, find(column)) for column in self.entity.columns]
        if any(each is None for _, each in found):
            return None
        return " AND ".join(
            self._equal(column, *each) for column, each in found if each is not None
        )

    def _equal(self, column: str, value: str, kind: str) -> str:
        given, declared = literal(self.entity.values[column]), self.entity.kinds[column]
        equal = [f"{value} = TRY_CAST({given} AS {kind})"]
        if kind == "VARCHAR" and declared != "VARCHAR":
            equal.append(f"TRY_CAST({value} AS {declared}) = CAST({given} AS {declared})")
        if kind == "VARCHAR" and (hashes := self._hashes(column, *self._written(column))):
            equal.append(f"{value} IN ({', '.join(map(literal, hashes))})")
        return f"({' OR '.join(f'coalesce({each}, false)' for each in equal)})"

    def _of_examples(self, find: Find) -> str | None:
        found = [find(column) for column in self.use_case.examples.entity]
        if not self.examples or any(each is None for each in found):
            return None
        texts = [f"CAST({each[0]} AS VARCHAR)" for each in found if each is not None]
        names = [f"c{n}" for n in range(len(texts))]
        if not self.names_rows:
            time = find(EVENT_TIME)
            if time is None:
                return None
            texts.append(f"CAST(TRY_CAST({time[0]} AS TIMESTAMPTZ) AS VARCHAR)")
            names.append("moment")
        return f"({', '.join(texts)}) IN (SELECT ({', '.join(names)}) FROM {EXAMPLES})"

    def _of_predictions(self, find: Find) -> str | None:
        found = find(PREDICTION_ID)
        if found is None or not self.predictions:
            return None
        return f"{found[0]} IN (SELECT id FROM {IDS})"

    @property
    def _hashed(self) -> frozenset[str]:
        log = self.use_case.serving.log
        return frozenset(log.hashed) if log else frozenset()

    def _written(self, column: str) -> list[str]:
        """The entity's value of a column, as it was given and as DuckDB writes it."""
        given = self.entity.values[column]
        query = f"SELECT CAST(CAST({literal(given)} AS {self.entity.kinds[column]}) AS VARCHAR)"
        return [given, *(self.cursor.execute(query).fetchone() or ())]

    def _hashes(self, column: str, *texts: str) -> list[str]:
        """What may stand for a value in the request log: a number comes as one, or as text."""
        if self.log_secret is None or column not in self._hashed:
            return []
        written = set(texts)
        if is_numeric(key_columns(self.use_case)[column]):
            written |= {str(float(text)) for text in texts}
        return sorted(str(hashed_value(self.log_secret, column, each)) for each in written)

    def _declare(self) -> None:
        names = [f"c{n}" for n in range(len(self.use_case.examples.entity))]
        columns = ", ".join(f"{name} VARCHAR" for name in (*names, "moment"))
        self.cursor.execute(f"CREATE OR REPLACE TEMP TABLE __erased_examples ({columns})")
        self.cursor.execute("CREATE OR REPLACE TEMP TABLE __erased_predictions (id VARCHAR)")
        known = {*self.examples, *self._hashed_examples()}
        for table, rows in ((EXAMPLES, known), (IDS, {(i,) for i in self.predictions})):
            if rows:
                values = ", ".join(
                    f"({', '.join('NULL' if v is None else literal(v) for v in row)})"
                    for row in sorted(rows, key=str)
                )
                self.cursor.execute(f"INSERT INTO {table} VALUES {values}")

    def _hashed_examples(self) -> Iterator[tuple[str, ...]]:
        """The examples as the request log has them."""
        columns = self.use_case.examples.entity
        for *values, moment in self.examples:
            written = [
                self._hashes(column, value) or [value]
                for column, value in zip(columns, values, strict=True)
            ]
            yield from ((*each, moment) for each in product(*written))


def _json_path(column: str) -> str:
    escaped = column.replace("\\", "\\\\").replace('"', '\\"')
    return f'$."{escaped}"'


def _word(value: str) -> str:
    # Not \b: a value may begin or end with what is no letter.
    return rf"(^|[^\pL\pN_]){re.escape(value)}([^\pL\pN_]|$)"

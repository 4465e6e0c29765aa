"""Types of DuckDB's columns in Spark."""

import re

from ml_platform.errors import EngineFailed

SIMPLE = {
    "BOOLEAN": "BOOLEAN", "TINYINT": "TINYINT", "SMALLINT": "SMALLINT", "INTEGER": "INT",
    "BIGINT": "BIGINT", "FLOAT": "FLOAT", "DOUBLE": "DOUBLE", "VARCHAR": "STRING", "DATE": "DATE",
    "TIMESTAMP": "TIMESTAMP_NTZ", "TIMESTAMP WITH TIME ZONE": "TIMESTAMP",
    # A file of Parquet holds it as a floating-point number.
    "HUGEINT": "DOUBLE",
    "UTINYINT": "SMALLINT", "USMALLINT": "INT", "UINTEGER": "BIGINT",
}  # fmt: skip
DECIMAL = re.compile(r"DECIMAL\(\d+,\s*\d+\)")
NESTED = {"MAP(VARCHAR, DOUBLE)": "MAP<STRING, DOUBLE>"}


def spark_type(kind: str, column: str) -> str:
    """Spark's name of a type, by DuckDB's own; EngineFailed where there is none.

    >>> spark_type("TIMESTAMP WITH TIME ZONE", "event_time"), spark_type("DECIMAL(9,2)", "fare")
    ('TIMESTAMP', 'DECIMAL(9,2)')
    """
    if DECIMAL.fullmatch(kind):
        return kind
    found = SIMPLE.get(kind) or NESTED.get(kind)
    if found is None:
        raise EngineFailed(
            f"engine spark: column '{column}' is {kind}, which Spark has no type for; cast it in "
            "the query, or compute the table in process"
        )
    return found

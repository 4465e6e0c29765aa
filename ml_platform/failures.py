"""What an error of a store means: whether its server is unavailable, or a disk is full.

Every error of DuckDB, MLflow, SQLAlchemy, Redis and Apprise that a person or a log sees comes
through here, and has no password in it any more. None of these libraries is imported for that.
"""

import errno
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ml_platform.masking import masked
from ml_platform.settings import Settings

Kind = Literal["unavailable", "disk full", "other"]

# What libpq, PostgreSQL, DuckDB's HTTP client, SQLAlchemy's drivers and Redis say.
UNAVAILABLE = re.compile(
    r"(?i)unable to connect to postgres|connection to server (on|at) |connection refused"
    r"|could not connect to server|server closed the connection unexpectedly"
    r"|terminating connection due to|ssl (connection|syscall)|no connection to the server"
    r"|could not (receive data from|send data to) server"
    r"|connection (reset|timed out|already closed)"
    r"|the database system is (starting up|shutting down|in recovery|not yet accepting)"
    # A connection that is gone has nothing to say of why.
    r"|^\s*$"
    r"|could not (establish connection|resolve host)|connection error for http"
    r"|error (connecting to|while reading from)|name or service not known"
    r"|error sending request|operation timed out|could not connect to the endpoint"
    r"|temporary failure in name resolution|remote end closed connection|api request to .* failed"
    r"|failed to (read|write) connection|too many clients already|server is not available"
    # MySQL and MariaDB: the server, or somebody else's transaction.
    r"|can't connect to (local )?(mysql |mariadb )?server"
    r"|lost connection to (mysql |mariadb )?server"
    r"|(mysql |mariadb )?server has gone away|server shutdown in progress|too many connections"
    r"|lock wait timeout exceeded|deadlock found when trying to get lock"
    r"|(^|error:\s+)deadlock detected"
    # SQLite: another process opens, closes or writes the database at this very moment.
    r"|(^|: )database (table |schema )?is locked\s*$"
)
# A server that answers and does not let this client in, or that this client does not trust: it
# says so in the words of one that is not there.
REFUSED = re.compile(
    r"(?i)certificate.?verify.?failed|ssl peer certificate|certificate for .* does not match"
    r"|tls.*alert|wrong.version.number|does not support ssl|(server|client) does not support tls"
    r"|root certificate file .* does not exist|could not (read|load).* certificate"
    r"|password authentication failed|no password supplied|no pg_hba\.conf entry"
    r"|fatal: +(database|role) .* does not exist"
    r"|access denied for user|wrongpass|noauth|invalid username-password"
)
NO_ROOM = re.compile(
    r"(?i)no space left on device|database or disk is full|could not (extend|write to) file"
    r"|disk quota exceeded|disk full|file too large|not enough space|insufficientstorage"
)
# What led to an error deltalake shows as a tree, in colours also where nobody sees them.
BRANCH = re.compile(r"\s*\x1b\[[0-9;]*m↳\x1b\[[0-9;]*m\s*")
STATEMENT, STATEMENT_ENDS = 'Failed to execute query "', '": '
STORES = frozenset(
    {
        "duckdb", "sqlite3", "mlflow", "sqlalchemy", "psycopg2", "psycopg", "pymysql",
        "adbc_driver_manager", "redis", "requests", "urllib3", "httpx", "botocore", "boto3",
        "azure", "apprise", "pymongo", "pyarrow", "pyiceberg", "ml_platform",
        # As deltalake calls its own.
        "internal",
    }
)  # fmt: skip
"""Packages whose errors are of a store or of the way to it."""
RETRIED_STATUS = frozenset({408, 429, 500, 502, 503, 504})
"""HTTP answers that another try may not get."""
NO_ROOM_ERRNO = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# Advice that DuckDB gives at the end, and that nobody should follow here.
ADVICE = re.compile(
    r"Exceeded the maximum retry count of \d+ set by the ducklake_max_retry_count setting\.\s*"
    r"|\. Consider increasing the value with:[^\n]*|Run \"SET ducklake_max_retry_count[^\n]*"
)
PREFIX = re.compile(
    r"^(TransactionContext Error: )?(Failed to commit: )?Failed to commit DuckLake transaction\.\s*"
)


@dataclass(frozen=True)
class Failure:
    """An error of a store, in one line without passwords."""

    kind: Kind
    text: str

    def __str__(self) -> str:
        if self.kind == "disk full":
            return f"a disk is full: {self.text}; make room, and do the same again"
        return self.text


def failure_of(error: BaseException, settings: Settings) -> Failure:
    """What an error means; the errors that led to it are looked at too."""
    kind: Kind = "other"
    if _is_of(error, _has_no_room):
        kind = "disk full"
    elif is_unavailable(error):
        kind = "unavailable"
    return Failure(kind, masked(one_line(error), settings))


def is_unavailable(error: BaseException) -> bool:
    """Whether an error, or one that led to it, says that a server does not answer."""
    return not is_refused(error) and _is_of(error, _is_unavailable)


def is_refused(error: BaseException) -> bool:
    """Whether an error says that server and client do not trust each other, which lasts."""
    return _is_of(error, lambda found: is_of_a_store(found) and _says(REFUSED, found))


def one_line(error: BaseException) -> str:
    """What an error says, without the query, the advice and the pointers below it."""
    said = ADVICE.sub("", BRANCH.sub(": ", _text(error)).strip())
    said = PREFIX.sub("", said)
    lines = [line.strip() for line in said.split("\n")]
    kept: list[str] = []
    for line in lines:
        if re.match(r"LINE \d+:|\[SQL:|\(Background on", line):
            break
        if line and not re.fullmatch(r"\^+", line):
            kept.append(line)
    return " ".join(kept) or type(error).__name__


def _text(error: BaseException) -> str:
    """What an error says; those of PyMySQL hold a number beside it."""
    match error.args:
        case (int(number), str(said)) if type(error).__module__.startswith("pymysql"):
            return f"{said} (error {number})"
    return str(error)


def reason(error: BaseException) -> str:
    """What a store says of a failure, without the statement that failed, which may say anything."""
    return str(error).rpartition(STATEMENT_ENDS)[2] if STATEMENT in str(error) else str(error)


def _is_of(error: BaseException, holds: Callable[[BaseException], bool]) -> bool:
    found: BaseException | None = error
    seen: set[int] = set()
    while found is not None and id(found) not in seen:
        if holds(found):
            return True
        seen.add(id(found))
        found = found.__cause__ or found.__context__
    return False


def _has_no_room(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in NO_ROOM_ERRNO:
        return True
    return is_of_a_store(error) and _says(NO_ROOM, error)


def _is_unavailable(error: BaseException) -> bool:
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    status = getattr(error, "status_code", None)
    if isinstance(status, int) and status in RETRIED_STATUS:
        return True
    return is_of_a_store(error) and _says(UNAVAILABLE, error)


def _says(pattern: re.Pattern[str], error: BaseException) -> bool:
    return pattern.search(reason(error)) is not None


def is_of_a_store(error: BaseException) -> bool:
    """Whether an error is one of a store's library, and no mistake in code."""
    return type(error).__module__.lstrip("_").partition(".")[0] in STORES

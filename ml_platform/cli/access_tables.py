"""Keys and the audit, as tables for people."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from ml_platform.access import Key, Row
from ml_platform.cli.printing import moment_in, show_line, show_table


def show_new_key(key: Key, text: str) -> None:
    """The key itself, which nobody can be shown again."""
    show_keys([key])
    show_line("the key, shown this once:")
    print(text)


def show_keys(keys: Sequence[Key]) -> None:
    """What is known of keys; times in UTC."""
    now = datetime.now(UTC)
    rows = [
        (
            key.id,
            key.name,
            " ".join(sorted(str(grant) for grant in key.grants)),
            key.state(now),
            moment_in(UTC, key.expires_at),
            key.created_by,
            key.revoked_by or "",
        )
        for key in keys
    ]
    if rows:
        show_table(("id", "name", "may", "state", "expires", "made by", "revoked by"), rows)
    else:
        show_line("there are no keys yet; make one with `ml-platform keys create`")


def show_audit(rows: Sequence[Row]) -> None:
    """Actions, oldest first; times in UTC."""
    table = [
        (
            str(row.sequence),
            moment_in(UTC, row.at, "seconds"),
            row.action.who,
            row.action.channel,
            row.action.what,
            row.action.use_case,
            row.action.object,
            ", ".join(f"{name}: {value}" for name, value in row.action.details.items()),
        )
        for row in rows
    ]
    if table:
        show_table(("row", "when", "who", "by", "what", "use case", "to", "details"), table)
    else:
        show_line("nothing is recorded that fits")


def print_audit(rows: Sequence[Row]) -> None:
    """The same as JSON, a row a line, with all that its hash covers."""
    for row in rows:
        action = row.action
        shown = {
            "sequence": row.sequence,
            "at": row.at.isoformat(timespec="microseconds"),
            "who": action.who,
            "channel": action.channel,
            "what": action.what,
            "use_case": action.use_case,
            "object": action.object,
            "details": dict(action.details),
            "previous": row.previous,
            "hash": row.hash,
        }
        print(json.dumps(shown))


def show_verified(rows: Sequence[Row]) -> None:
    """That the chain is whole, and where it ends."""
    end = f"; the newest hash is {rows[-1].hash}" if rows else ""
    show_line(f"all {len(rows)} rows are as they were recorded{end}")

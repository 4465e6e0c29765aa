"""From entries of the ledger to what a person reads."""

from collections.abc import Sequence

from ml_platform.alerts.channels import Message
from ml_platform.alerts.condition import SEVERITIES, Kind
from ml_platform.alerts.ledger import LedgerEntry

MOST_APART = 3
"""So many entries of one kind are sent one by one; more at a time share a message."""
MOST_LISTED = 12

MANY: dict[Kind, str] = {
    "drift": "drifts",
    "performance": "poor performances",
    "failed_run": "failed runs",
    "quarantine": "partitions with too much in quarantine",
    "freshness": "late tables",
    "refused": "challengers refused",
    "approval": "versions that wait for approval",
    "promotion": "promotions",
    "rollback": "rollbacks",
    "serving": "versions that cannot be served",
    "rollout": "rollouts ended",
}


def write_message(use_case: str, entries: Sequence[LedgerEntry]) -> Message:
    """The message of entries that are sent together; they are of one kind and one state."""
    first = entries[0]
    is_all_clear = first.state == "cleared"
    if len(entries) == 1:
        title, body = first.title, f"{first.body}\n{first.link}"
    else:
        title = f"{use_case}: {len(entries)} {MANY[first.kind]}"
        title = f"All clear: {title}" if is_all_clear else title
        listed = [f"- {entry.title.removeprefix('All clear: ')}" for entry in entries]
        if len(listed) > MOST_LISTED:
            listed = [f"- … and {len(listed) - MOST_LISTED} before", *listed[-MOST_LISTED:]]
        body = "\n".join([*listed, "", "The last one:", entries[-1].body, entries[-1].link])
    return Message(
        use_case=use_case,
        kinds=frozenset({first.kind}),
        severity=SEVERITIES[first.kind],
        title=title,
        body=body,
        is_all_clear=is_all_clear,
    )

"""Labels that come back: checked, written down for good, landed as the source `feedback`."""

import hashlib
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from ml_platform.access import Action, Caller, Channel
from ml_platform.errors import NotServed, RequestRefused
from ml_platform.serving.records.audit_notes import AuditNotes
from ml_platform.serving.records.items import Classes, Item, Items
from ml_platform.serving.records.outbox import written_below
from ml_platform.serving.records.segments import SegmentWriter, land_orphans
from ml_platform.serving.zones import ItemTime, ItemTimes
from ml_platform.settings import ServingSettings, Settings
from ml_platform.spec.use_case import FEEDBACK, UseCase

REVIEW = "review"
"""Origin of what a person says of a prediction that waits."""
SKIP = "skip"
"""Kind of a record that says that a reviewer has no answer."""
MOST_ITEMS = 10_000
MOST_NAMED = 20
"""Items that a refusal names."""
IsOf = Callable[[str, str, str], bool]
"""Of an id of a prediction, a use case and a principal."""


@dataclass(frozen=True)
class Said:
    """Who said something, and in which capacity."""

    origin: str
    """`feedback` of a caller, `review` of a person who answered the queue."""
    by: str | None
    channel: Channel = "api"
    details: Mapping[str, str] = field(default_factory=dict)
    """What the audit says of them besides."""
    without_label: Caller | None = None
    """Who may speak of predictions alone that were answered to them; None who may of any."""


@dataclass(frozen=True)
class FeedbackReceipt:
    """Feedback that is on the disk."""

    ids: Sequence[str]
    """What each item is called."""
    times_read: ItemTimes | None
    """How times without a zone were read; None where every time had one."""


class FeedbackInbox:
    """Takes feedback of the use cases that want some; threads may share it.

    notes: where the audit hears of each call, before anything of it is kept.
    classes: what a label can be; a new class comes by `labels.sql`, never by a typo.
    is_of: whether a prediction, by its id, of a use case was answered to a principal.
    """

    def __init__(
        self,
        settings: Settings,
        serving: ServingSettings,
        use_cases: Iterable[UseCase],
        notes: AuditNotes,
        classes: Classes,
        is_of: IsOf = lambda *_: False,
    ) -> None:
        self._boxes = {
            case.name: _Box(
                Items(case, classes),
                case,
                written_below(settings, case) / FEEDBACK,
                serving,
                notes,
                is_of,
            )
            for case in use_cases
            if case.takes_feedback
        }

    def take(self, name: str, items: Sequence[Any], said: Said) -> FeedbackReceipt:
        """Check items and write them down, all or none.

        An item is an object: `prediction_id`, or the entity's columns and `event_time`; `label`;
        `kind`, which is label or correction; `known_at`, by default now. When this returns they are
        on the disk. Raises RequestRefused, of it TimeRefused where a time cannot
        be and ClassUnknown where a label cannot, Forbidden, NotServed, NotKept.
        """
        return self._box(name).take(items, said)

    def answer(self, name: str, prediction_id: str, label: Any, kind: str, said: Said) -> str:
        """Note a reviewer's label of a prediction; raises as `take` does."""
        return self._box(name).answer(prediction_id, label, kind, said)

    def skip(self, name: str, prediction_id: str, said: Said) -> str:
        """Note that a reviewer has no answer for a prediction; raises as `take` does."""
        return self._box(name).skip(prediction_id, said)

    def land_old(self) -> None:
        """Land files that are old enough."""
        for box in self._boxes.values():
            box.segments.land_old()

    def close(self) -> None:
        """Land everything."""
        for box in self._boxes.values():
            box.segments.close()
            box.items.close()

    def _box(self, name: str) -> "_Box":
        if name not in self._boxes:
            known = ", ".join(self._boxes) or "none"
            raise NotServed(f"no use case '{name[:60]}' takes feedback here; there are: {known}")
        return self._boxes[name]


class _Box:
    def __init__(
        self,
        items: Items,
        case: UseCase,
        folder: Path,
        serving: ServingSettings,
        notes: AuditNotes,
        is_of: IsOf,
    ) -> None:
        self.items, self._case, self._notes, self._is_of = items, case, notes, is_of
        self.segments = SegmentWriter(folder, serving.log_bytes, serving.log_seconds)
        land_orphans(folder)

    def take(self, items: Sequence[Any], said: Said) -> FeedbackReceipt:
        if not 1 <= len(items) <= MOST_ITEMS:
            raise RequestRefused(f"{len(items)} items; send from 1 to {MOST_ITEMS}")
        if said.without_label is not None:
            self._require_own(items, said.without_label)
        now = datetime.now(UTC)
        read: list[Item] = []
        for number, item in enumerate(items):
            try:
                read.append(self.items.read(item, now))
            except RequestRefused as error:
                error.args = (f"item {number}: {error}",)
                raise
        records = [self._labelled(item, said, now) for item in read]
        return FeedbackReceipt(self._keep(records, said), self._times_read(read))

    def _require_own(self, items: Sequence[Any], caller: Caller) -> None:
        others = [
            str(number) for number, item in enumerate(items) if not self._is_own(item, caller)
        ]
        if others:
            more = ", …" if len(others) > MOST_NAMED else ""
            which = f"item{'s' * (len(others) > 1)} {', '.join(others[:MOST_NAMED])}{more}"
            why = f"{which}: not named by the id of a prediction that was answered to you, and "
            caller.require("label", self._case.name, why)

    def _is_own(self, item: Any, caller: Caller) -> bool:
        named = item.get("prediction_id") if isinstance(item, dict) else None
        return isinstance(named, str) and self._is_of(named, self._case.name, caller.principal)

    def _times_read(self, items: Sequence[Item]) -> ItemTimes | None:
        read_as = [
            ItemTime(number, key, moment.isoformat())
            for number, item in enumerate(items)
            for key, moment in item.unzoned.items()
        ]
        return ItemTimes(self._case.timezone, read_as) if read_as else None

    def answer(self, prediction_id: str, label: Any, kind: str, said: Said) -> str:
        now = datetime.now(UTC)
        item = {"prediction_id": prediction_id, "label": label, "kind": kind}
        (name,) = self._keep([self._labelled(self.items.read(item, now), said, now)], said)
        return name

    def skip(self, prediction_id: str, said: Said) -> str:
        now = datetime.now(UTC)
        target = self.items.by_id(prediction_id)
        (name,) = self._keep([self._stamped(target, None, SKIP, now, said, now)], said)
        return name

    def _keep(self, records: list[dict[str, Any]], said: Said) -> list[str]:
        self._notes.note(_action(self._case, records, said))
        self.segments.append(msgspec.json.Encoder().encode_lines(records), synced=True)
        return [record["feedback_id"] for record in records]

    def _labelled(self, item: Item, said: Said, now: datetime) -> dict[str, Any]:
        return self._stamped(item.target, item.label, item.kind, item.known_at, said, now)

    def _stamped(
        self,
        target: Mapping[str, Any],
        label: Any,
        kind: str,
        known_at: datetime,
        said: Said,
        now: datetime,
    ) -> dict[str, Any]:
        return {
            "feedback_id": f"{int(now.timestamp() * 1e6):014x}-{secrets.token_hex(8)}",
            "prediction_id": None,
            **dict.fromkeys(self._case.examples.entity),
            **target,
            "label": label,
            "kind": kind,
            "origin": said.origin,
            "given_by": said.by,
            "known_at": known_at,
            "received_at": now,
        }


def digest_of(ids: Iterable[str]) -> str:
    """What stands in the audit for the ids of one call's feedback: SHA-256 of them, sorted.

    >>> digest_of(["b", "a"]) == digest_of(["a", "b"])
    True
    """
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()


def _action(case: UseCase, records: Sequence[Mapping[str, Any]], said: Said) -> Action:
    kinds = Counter(record["kind"] for record in records)
    what = "give feedback" if said.origin == "feedback" else "answer review"
    if SKIP in kinds:
        what = "skip review"
    single = records[0]["prediction_id"] if len(records) == 1 else None
    return Action(
        who=said.by or "unknown",
        channel=said.channel,
        what=what,
        use_case=case.name,
        object=f"prediction {single}" if single else f"{len(records)} items of feedback",
        details={
            **{f"{kind}s": str(count) for kind, count in sorted(kinds.items())},
            "received_at": records[0]["received_at"].isoformat(),
            "ids": digest_of(record["feedback_id"] for record in records),
            **said.details,
        },
    )

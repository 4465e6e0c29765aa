"""Labels that come back: checked, written down for good, landed as the source `feedback`."""

import hashlib
import secrets
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from ml_platform.access import Channel, Deed
from ml_platform.errors import ExampleRefused, NotServed, RequestRefused
from ml_platform.features import entity_types
from ml_platform.features.keys import KeyTexts
from ml_platform.serving.calls import event_time_of
from ml_platform.serving.records.audit_notes import AuditNotes
from ml_platform.serving.records.outbox import written_below
from ml_platform.serving.records.segments import Segments, land_orphans
from ml_platform.settings import ServingSettings, Settings
from ml_platform.spec.use_case import FEEDBACK, UseCase
from ml_platform.spec.values import suggest

KINDS = ("label", "correction")
SKIP = "skip"
"""Kind of a record that says that a reviewer has no answer."""
OTHER_KEYS = ("prediction_id", "event_time", "label", "kind", "known_at")
MOST_ITEMS = 10_000


@dataclass(frozen=True)
class Said:
    """Who said something, and in which capacity."""

    origin: str
    """`feedback` of a caller, `review` of a person who answered the queue."""
    by: str | None
    channel: Channel = "api"


class FeedbackInbox:
    """Takes feedback of the use cases that want some; threads may share it.

    notes: where the audit hears of each call, before anything of it is kept.
    """

    def __init__(
        self,
        settings: Settings,
        serving: ServingSettings,
        use_cases: Iterable[UseCase],
        notes: AuditNotes,
    ) -> None:
        self._boxes = {
            case.name: _Box(case, written_below(settings, case) / FEEDBACK, serving, notes)
            for case in use_cases
            if case.takes_feedback
        }

    def take(self, name: str, items: Sequence[Any], said: Said) -> list[str]:
        """Check items and write them down, all or none; returns what each is called.

        An item is an object: `prediction_id`, or the entity's columns and `event_time`; `label`;
        `kind`, which is label or correction; `known_at`, by default now. When this returns they are
        on the disk. Raises RequestRefused, NotServed, NotKept.
        """
        return self._box(name).take(items, said)

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
            box.texts.close()

    def _box(self, name: str) -> "_Box":
        if name not in self._boxes:
            known = ", ".join(self._boxes) or "none"
            raise NotServed(f"no use case '{name[:60]}' takes feedback here; there are: {known}")
        return self._boxes[name]


class _Box:
    def __init__(
        self, case: UseCase, folder: Path, serving: ServingSettings, notes: AuditNotes
    ) -> None:
        self._case, self._notes = case, notes
        self._zone = ZoneInfo(case.timezone)
        self._entity = case.examples.entity
        self.texts = KeyTexts(entity_types(case, self._entity), case.timezone)
        self.segments = Segments(folder, serving.log_bytes, serving.log_seconds)
        land_orphans(folder)

    def take(self, items: Sequence[Any], said: Said) -> list[str]:
        if not 1 <= len(items) <= MOST_ITEMS:
            raise RequestRefused(f"{len(items)} items; send from 1 to {MOST_ITEMS}")
        now = datetime.now(UTC)
        records = []
        for number, item in enumerate(items):
            try:
                records.append(self._record(item, said, now))
            except RequestRefused as error:
                raise RequestRefused(f"item {number}: {error}") from None
        return self._keep(records, said)

    def skip(self, prediction_id: str, said: Said) -> str:
        now = datetime.now(UTC)
        target = self._by_id(prediction_id)
        (name,) = self._keep([self._stamped(target, None, SKIP, now, said, now)], said)
        return name

    def _keep(self, records: list[dict[str, Any]], said: Said) -> list[str]:
        self._notes.note(_deed(self._case, records, said))
        self.segments.append(msgspec.json.Encoder().encode_lines(records), synced=True)
        return [record["feedback_id"] for record in records]

    def _record(self, item: Any, said: Said, now: datetime) -> dict[str, Any]:
        if not isinstance(item, dict):
            raise RequestRefused("should be an object with a label")
        for key in item:
            if key not in {*OTHER_KEYS, *self._entity}:
                raise RequestRefused(f"no such key{suggest(key[:60], OTHER_KEYS)}", key[:60])
        kind = item.get("kind", "label")
        if kind not in KINDS:
            raise RequestRefused(f"kind should be {' or '.join(KINDS)}")
        known_at = now if item.get("known_at") is None else self._time("known_at", item["known_at"])
        if known_at > now:
            raise RequestRefused("is in the future; nobody can know the label yet", "known_at")
        label = self._label(item.get("label"))
        return self._stamped(self._target(item), label, kind, known_at, said, now)

    def _target(self, item: Mapping[str, Any]) -> dict[str, Any]:
        prediction = item.get("prediction_id")
        if prediction is not None:
            also = [key for key in (*self._entity, "event_time") if item.get(key) is not None]
            if also:
                raise RequestRefused(f"prediction_id says it all; leave out {', '.join(also)}")
            return self._by_id(prediction)
        lacking = [key for key in (*self._entity, "event_time") if item.get(key) is None]
        if lacking:
            raise RequestRefused(
                f"name the prediction by prediction_id, or by {', '.join(self._entity)} and "
                f"event_time: {', '.join(lacking)} is missing"
            )
        try:
            entity = {name: self.texts.of(name, [item[name]])[0] for name in self._entity}
        except ExampleRefused as error:
            raise RequestRefused(error.problem, error.column) from None
        return {**entity, "event_time": self._time("event_time", item["event_time"])}

    def _by_id(self, prediction_id: Any) -> dict[str, Any]:
        if not isinstance(prediction_id, str):
            raise RequestRefused("should be text", "prediction_id")
        return {"prediction_id": prediction_id, "event_time": event_time_of(prediction_id)}

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
            **dict.fromkeys(self._entity),
            **target,
            "label": label,
            "kind": kind,
            "origin": said.origin,
            "given_by": said.by,
            "known_at": known_at,
            "received_at": now,
        }

    def _label(self, label: Any) -> bool | str | float:
        match self._case.label.task, label:
            case "binary", bool():
                return label
            case "binary", 0 | 1:
                return bool(label)
            case "multiclass", str() if label:
                return label
            case "regression", int() | float() if _is_finite(label):
                return float(label)
        wanted = {"binary": "true or false", "multiclass": "text", "regression": "a number"}
        raise RequestRefused(f"should be {wanted[self._case.label.task]}", "label")

    def _time(self, key: str, value: Any) -> datetime:
        try:
            moment = datetime.fromisoformat(value)
            return (moment if moment.tzinfo else moment.replace(tzinfo=self._zone)).astimezone(UTC)
        except (TypeError, ValueError, OverflowError):
            raise RequestRefused("should be a time such as 2024-03-01T12:00:00Z", key) from None


def digest_of(ids: Iterable[str]) -> str:
    """What stands in the audit for the ids of one call's feedback: SHA-256 of them, sorted.

    >>> digest_of(["b", "a"]) == digest_of(["a", "b"])
    True
    """
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()


def _deed(case: UseCase, records: Sequence[Mapping[str, Any]], said: Said) -> Deed:
    kinds = Counter(record["kind"] for record in records)
    what = "give feedback" if said.origin == "feedback" else "answer review"
    if SKIP in kinds:
        what = "skip review"
    single = records[0]["prediction_id"] if len(records) == 1 else None
    return Deed(
        who=said.by or "unknown",
        channel=said.channel,
        what=what,
        use_case=case.name,
        object=f"prediction {single}" if single else f"{len(records)} items of feedback",
        details={
            **{f"{kind}s": str(count) for kind, count in sorted(kinds.items())},
            "received_at": records[0]["received_at"].isoformat(),
            "ids": digest_of(record["feedback_id"] for record in records),
        },
    )


def read_label(use_case: UseCase, text: str) -> bool | str | float:
    """A label as a person types it; RequestRefused where it is none of the task."""
    match use_case.label.task:
        case "binary" if text.lower() in {"true", "1", "false", "0"}:
            return text.lower() in {"true", "1"}
        case "regression":
            try:
                return float(text)
            except ValueError:
                raise RequestRefused(f"'{text[:60]}' is no number", "label") from None
        case "multiclass":
            return text
    raise RequestRefused(f"'{text[:60]}' should be true or false", "label")


def _is_finite(label: float) -> bool:
    # Whole numbers can be larger than any float; of NaN the comparison does not hold.
    return not isinstance(label, bool) and abs(label) <= sys.float_info.max

"""One label that came back, as somebody sends it: what it is about, and whether it can be."""

import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from ml_platform.errors import ClassUnknown, ExampleRefused, RequestRefused, TimeRefused
from ml_platform.features import entity_types
from ml_platform.features.keys import SHOWN, KeyTexts
from ml_platform.serving.calls import event_time_of
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.values import suggest

Classes = Callable[[str], Collection[str]]
"""What labels of a use case can be, by its name; empty where that is not known."""
KINDS = ("label", "correction")
TIMES = ("event_time", "known_at")
OTHER_KEYS = ("prediction_id", "event_time", "label", "kind", "known_at")
CLOCK_SKEW = timedelta(seconds=30)
"""How far clocks of two machines may differ: what is earlier by so little counts as not."""


@dataclass(frozen=True)
class Item:
    """A label that may be kept."""

    target: Mapping[str, Any]
    """The prediction's id, or the entity; and the event time."""
    label: bool | str | float
    kind: str
    known_at: datetime
    unzoned: Mapping[str, datetime]
    """Times that were sent without a zone, by key, in that of the use case."""


class Items:
    """Reads what is sent about one use case; threads may share it."""

    def __init__(self, case: UseCase, classes: Classes) -> None:
        self._case, self._classes = case, classes
        self._zone = ZoneInfo(case.timezone)
        self._entity = case.examples.entity
        self._texts = KeyTexts(entity_types(case, self._entity), case.timezone)

    def read(self, item: Any, now: datetime) -> Item:
        """An item of feedback, checked.

        Raises RequestRefused, and of it TimeRefused or ClassUnknown where everything is written as
        it should be, and the times or the label cannot be.
        """
        if not isinstance(item, dict):
            raise RequestRefused("should be an object with a label")
        for key in item:
            known = (*self._entity, *OTHER_KEYS)
            if key not in known:
                raise RequestRefused(f"no such key{suggest(key[:SHOWN], known)}", key[:SHOWN])
        kind = item.get("kind", "label")
        if kind not in KINDS:
            raise RequestRefused(f"kind should be {' or '.join(KINDS)}")
        known_at = item.get("known_at")
        known_at = now if known_at is None else self._time("known_at", known_at)
        label = self._label(item.get("label"))
        target = self._target(item)
        named = "prediction_id" if "prediction_id" in target else "event_time"
        known_at = self._known(named, target["event_time"], known_at, now)
        return Item(target, label, kind, known_at, self._unzoned(item))

    def by_id(self, prediction_id: Any) -> dict[str, Any]:
        """What is said of a prediction is said of; RequestRefused where the id is none of ours."""
        if not isinstance(prediction_id, str):
            raise RequestRefused("should be text", "prediction_id")
        return {"prediction_id": prediction_id, "event_time": event_time_of(prediction_id)}

    def close(self) -> None:
        """Let go of what types are checked with."""
        self._texts.close()

    def _target(self, item: Mapping[str, Any]) -> dict[str, Any]:
        prediction = item.get("prediction_id")
        if prediction is not None:
            also = [key for key in (*self._entity, "event_time") if item.get(key) is not None]
            if also:
                raise RequestRefused(f"prediction_id says it all; leave out {', '.join(also)}")
            return self.by_id(prediction)
        lacking = [key for key in (*self._entity, "event_time") if item.get(key) is None]
        if lacking:
            raise RequestRefused(
                f"name the prediction by prediction_id, or by {', '.join(self._entity)} and "
                f"event_time: {', '.join(lacking)} is missing"
            )
        try:
            entity = {name: self._texts.of(name, [item[name]])[0] for name in self._entity}
        except ExampleRefused as error:
            raise RequestRefused(error.problem, error.column) from None
        return {**entity, "event_time": self._time("event_time", item["event_time"])}

    def _known(
        self, named: str, event_time: datetime, known_at: datetime, now: datetime
    ) -> datetime:
        """From when on a label was known, never before the event time.

        named: the key that says when that is.
        """
        partitions = self._case.partitions
        if event_time not in partitions:
            raise TimeRefused(
                named,
                f"its event time, {_shown(event_time)}, is outside of the history, which is "
                f"{partitions.reach}: there will never be such an example",
            )
        if event_time > now + CLOCK_SKEW:
            raise TimeRefused(
                named,
                f"its event time, {_shown(event_time)}, is in the future: nobody can know the "
                "label yet",
            )
        if known_at > now + CLOCK_SKEW:
            raise TimeRefused("known_at", "is in the future; nobody can know the label yet")
        if known_at < event_time - CLOCK_SKEW:
            raise TimeRefused(
                "known_at",
                f"is before the event time, {_shown(event_time)}; a label is known once it has "
                "happened",
            )
        return max(known_at, event_time)

    def _label(self, label: Any) -> bool | str | float:
        match self._case.label.task, label:
            case "binary", bool():
                return label
            case "binary", 0 | 1:
                return bool(label)
            case "multiclass", str() if label:
                return self._known_class(label)
            case "regression", int() | float() if _is_finite(label):
                return float(label)
        wanted = {"binary": "true or false", "multiclass": "text", "regression": "a number"}
        raise RequestRefused(f"should be {wanted[self._case.label.task]}", "label")

    def _known_class(self, label: str) -> str:
        classes = self._classes(self._case.name)
        if classes and label not in classes:
            hint = suggest(label[:SHOWN], sorted(classes))
            raise ClassUnknown(
                "label", f"'{label[:SHOWN]}' is not a class that the model that serves knows{hint}"
            )
        return label

    def _unzoned(self, item: Mapping[str, Any]) -> dict[str, datetime]:
        return {
            key: self._time(key, item[key]).astimezone(self._zone)
            for key in TIMES
            if item.get(key) is not None and datetime.fromisoformat(item[key]).tzinfo is None
        }

    def _time(self, key: str, value: Any) -> datetime:
        try:
            moment = datetime.fromisoformat(value)
            if moment.tzinfo is not None:
                return moment.astimezone(UTC)
            # As DuckDB reads it in every other place: of an hour that comes twice the second.
            folds = (moment.replace(tzinfo=self._zone, fold=fold) for fold in (0, 1))
            return max(each.astimezone(UTC) for each in folds)
        except (TypeError, ValueError, OverflowError):
            raise RequestRefused("should be a time such as 2024-03-01T12:00:00Z", key) from None


def read_label(use_case: UseCase, text: str) -> bool | str | float:
    """A label as a person types it; RequestRefused where it is none of the task."""
    match use_case.label.task:
        case "binary" if text.lower() in {"true", "1", "false", "0"}:
            return text.lower() in {"true", "1"}
        case "regression":
            try:
                return float(text)
            except ValueError:
                raise RequestRefused(f"'{text[:SHOWN]}' is not a number", "label") from None
        case "multiclass":
            return text
    raise RequestRefused(f"'{text[:SHOWN]}' should be true or false", "label")


def _is_finite(label: float) -> bool:
    # Whole numbers can be larger than any float; of NaN the comparison does not hold.
    return not isinstance(label, bool) and abs(label) <= sys.float_info.max


def _shown(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat()

"""Parameters that a caller gives to a pipeline, against what the pipeline declares."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ml_platform.backfill.upkeep import newest_complete
from ml_platform.errors import EmptyPartition, ParameterNotAllowed, ParameterRefused
from ml_platform.serving.control.requests import cutoff_in, range_in
from ml_platform.sources.locations import check_location
from ml_platform.spec.duration import Duration
from ml_platform.spec.locations import location
from ml_platform.spec.pipelines import CountBounds, Pipeline, ShareBounds, WindowBounds
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.values import suggest
from ml_platform.spec.windows import Window

PLACE = "parameters"
TIMES = {"train": ("cutoff",), "score": ("from", "to"), "backfill": ("from", "to")}
LONGEST_KEY = 40


@dataclass(frozen=True)
class RunParameters:
    """What a run is asked for, defaults included."""

    range: Window
    """Partitions that it computes; of a training, the cutoff's."""
    asked: Mapping[str, Any]
    """By parameter, as in a request."""
    locations: tuple[str, ...] = ()
    """Sources whose files are looked for elsewhere."""


def known_parameters(pipeline: Pipeline) -> tuple[str, ...]:
    """Names of the parameters that a pipeline takes."""
    bounded = (name for name in pipeline.parameters.given if name != "partitions")
    return (*TIMES[pipeline.run], *bounded)


def read_given(
    case: UseCase,
    pipeline: Pipeline,
    given: Mapping[str, Any],
    now: datetime,
    newest: Callable[[UseCase, datetime], Window],
) -> RunParameters:
    """What a caller asks for; ParameterNotAllowed names the parameter and what it may be.

    newest: the cutoff of a training for which none is given. Raises EmptyPartition where a range
    is left out and no partition is over yet.
    """
    known = known_parameters(pipeline)
    for name in given:
        if name not in known:
            said = "is not declared of this pipeline" + suggest(name[:60], known)
            raise ParameterNotAllowed(f"{PLACE}.{name[:60]}", said)
    values = {name: value for name, value in given.items() if value is not None}
    asked_range, asked = _times(case, pipeline, values, now, newest)
    declared = pipeline.parameters
    if declared.window is not None and (length := _window(case, declared.window, values)):
        asked["window"] = str(length)
    if declared.sample is not None and (share := _share(declared.sample, values)) is not None:
        asked["sample"] = share
    if declared.sample_rows is not None:
        count = _count("sample_rows", declared.sample_rows, values)
        asked |= {} if count is None else {"sample_rows": count}
    locations = _locations(pipeline, values)
    if locations:
        asked["locations"] = locations
    return RunParameters(asked_range, asked, tuple(locations))


def _times(
    case: UseCase,
    pipeline: Pipeline,
    values: Mapping[str, Any],
    now: datetime,
    newest: Callable[[UseCase, datetime], Window],
) -> tuple[Window, dict[str, Any]]:
    keys = {name: _key(name, values[name]) for name in TIMES[pipeline.run] if name in values}
    if pipeline.run == "train":
        with _not_allowed():
            cutoff = cutoff_in(case, keys["cutoff"], now) if keys else newest(case, now)
        return cutoff, {"cutoff": case.calendar.key(cutoff)}
    first = keys.get("from") or keys.get("to") or _newest_key(case, now)
    last = keys.get("to") or first
    with _not_allowed():
        asked_range = range_in(case, now, first, last, ("from", "to"))
    most = (pipeline.parameters.partitions or CountBounds()).most
    count = sum(1 for _ in case.calendar.windows(asked_range))
    if most is not None and count > most:
        raise ParameterNotAllowed(
            f"{PLACE}.to", f"the range has {count} partitions, and may have {most} at most"
        )
    first, last = case.calendar.keys(asked_range)
    return asked_range, {"from": first, "to": last}


def _newest_key(case: UseCase, now: datetime) -> str:
    newest = newest_complete(case, now)
    if newest is None:
        raise EmptyPartition(f"no partition of {case.name} is over yet")
    return case.calendar.key(newest)


def _key(name: str, value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_KEY:
        said = "should be a partition, by its key in quotes, such as '2024-03-01'"
        raise ParameterNotAllowed(f"{PLACE}.{name}", said)
    return value


def _window(case: UseCase, bounds: WindowBounds, values: Mapping[str, Any]) -> Duration | None:
    if "window" not in values:
        return bounds.default
    place = f"{PLACE}.window"
    if not isinstance(values["window"], str):
        raise ParameterNotAllowed(place, "should be a length of time in quotes, such as '60d'")
    try:
        length = Duration.parse(values["window"][:60])
    except ValueError as error:
        raise ParameterNotAllowed(place, str(error)) from None
    start, zone, holdout = case.calendar.start, case.calendar.timezone, case.model.holdout
    if length.before(start, zone) >= holdout.before(start, zone):
        said = f"'{length}' is no longer than the holdout of '{holdout}'"
        raise ParameterNotAllowed(place, f"{said}, so that nothing is left to train on")
    for bound, word in ((bounds.least, "least"), (bounds.most, "most")):
        over = bound and (length.seconds - bound.seconds) * (1 if word == "most" else -1) > 0
        if over:
            raise ParameterNotAllowed(place, f"'{length}' should be '{bound}' at {word}")
    return length


def _share(bounds: ShareBounds, values: Mapping[str, Any]) -> float | None:
    if "sample" not in values:
        return bounds.default
    value, place, least = values["sample"], f"{PLACE}.sample", bounds.least or 0
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ParameterNotAllowed(place, "should be a share of the rows, such as 0.25")
    if not value > 0 or not least <= value <= bounds.most:
        between = f"{least:g} and {bounds.most:g}" + ("" if least else ", and more than 0")
        raise ParameterNotAllowed(place, f"{value:g} should be between {between}")
    return float(value)


def _count(name: str, bounds: CountBounds, values: Mapping[str, Any]) -> int | None:
    if name not in values:
        return bounds.default
    value, place = values[name], f"{PLACE}.{name}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise ParameterNotAllowed(place, "should be a number of rows, such as 10000")
    if value < bounds.least or (bounds.most is not None and value > bounds.most):
        most = "" if bounds.most is None else f" and {bounds.most} at most"
        raise ParameterNotAllowed(place, f"{value} should be {bounds.least} at least{most}")
    return value


def _locations(pipeline: Pipeline, values: Mapping[str, Any]) -> dict[str, str]:
    given, declared = values.get("locations", {}), pipeline.parameters.locations
    if not isinstance(given, dict):
        said = "should be folders by source, such as {" + '"trips": "archive/2024"}'
        raise ParameterNotAllowed(f"{PLACE}.locations", said)
    found = {}
    for source, folder in given.items():
        place = f"{PLACE}.locations.{source[:60]}"
        if source not in declared:
            said = "is not a source whose location can be given" + suggest(source[:60], declared)
            raise ParameterNotAllowed(place, said)
        if not isinstance(folder, str):
            raise ParameterNotAllowed(place, "should be a folder or a URL, in quotes")
        try:
            found[source] = check_location(folder[:2000], map(location, declared[source]))
        except ValueError as error:
            raise ParameterNotAllowed(place, str(error)) from None
    return found


@contextmanager
def _not_allowed() -> Iterator[None]:
    try:
        yield
    except ParameterRefused as error:
        raise ParameterNotAllowed(
            f"{PLACE}.{error.field}", error.problem.partition(": ")[2]
        ) from None

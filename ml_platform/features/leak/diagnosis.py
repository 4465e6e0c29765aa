"""Why a row differs: it looks ahead, or further back than declared, or its sources changed."""

from dataclasses import replace
from datetime import timedelta

from ml_platform.features.leak.causes import Cause, Probe, hidden_at, outside
from ml_platform.features.leak.comparison import RowComparison, RowDifference
from ml_platform.features.leak.shown import SourceCopies
from ml_platform.features.views import Sight
from ml_platform.spec.windows import Window, utc

FARTHEST = timedelta(days=92)
"""Before and after a window source rows are looked at for what changes its rows."""


def explain(
    shown: SourceCopies, sight: Sight, comparison: RowComparison, difference: RowDifference
) -> str:
    """What is wrong with a subject whose rows of a sight differ from those stored.

    Replaces what was copied of the sources.
    """
    if sight.farther:
        plain = replace(sight, farther=False)
        found = _first(shown, comparison, plain)
        if found is None:
            return _reach_too_short(shown, sight, difference)
        return explain(shown, plain, comparison, found)
    alone = Sight(sight.range, sight.snapshot)
    if found := _first(shown, comparison, alone):
        return _differs_alone(shown, alone, found)
    return _leak(shown, sight, difference)


def _first(shown: SourceCopies, comparison: RowComparison, sight: Sight) -> RowDifference | None:
    zone = shown.subject.use_case.calendar.timezone
    wanted = replace(comparison, ignores_new=comparison.ignores_new and sight.known_by is not None)
    return wanted.first(shown.cursor, shown.stored(sight), shown.again(sight), zone)


def _leak(shown: SourceCopies, sight: Sight, difference: RowDifference) -> str:
    assert sight.known_by is not None
    probe = Probe(shown, difference, sight.known_by)
    everything = Sight(sight.range, sight.snapshot)
    cause = probe.cause(everything, hidden_at(sight.known_by), "known_at, row_at")
    named = f" It looks ahead: {cause}." if cause else ""
    if shown.subject.is_of_labels:
        may = "A label's known_at may not be earlier than that of the rows that it is made of"
    else:
        may = "A feature may use only rows with known_at <= its event_time"
    return (
        f"{shown.subject.file}: a leak in partition {_key(shown, sight)}: hiding what was not "
        f"known at {sight.known_by.isoformat()} changes "
        f"{difference.described('without the future')}."
        f"{named} {may}"
    )


def _differs_alone(shown: SourceCopies, alone: Sight, difference: RowDifference) -> str:
    file, key = shown.subject.file, _key(shown, alone)
    said = difference.described("alone")
    head = f"{file}: partition {key} computed alone differs from what is stored: {said}."
    wide = Window(utc(alone.range.start) - FARTHEST, utc(alone.range.end) + FARTHEST)
    seen = shown.subject.sees(alone)
    shown.copy_sources(shown.subject.sees(replace(alone, range=wide)))
    probe = Probe(shown, difference, None)
    # Asked first: to such a query any row would seem to make the difference.
    if len(values := {str(probe.value(alone)) for _ in range(3)}) > 1:
        return f"{head} The query yields another value each time: {', '.join(sorted(values))}"
    before, after = outside(seen, shown.subject.sees(replace(alone, range=wide)))
    later = replace(alone, range=Window(alone.range.start, wide.end))
    if cause := probe.cause(later, after, "row_at, known_at"):
        return f"{head} {_ahead(shown, cause)}"
    earlier = replace(alone, range=Window(wide.start, alone.range.end))
    if cause := probe.cause(earlier, before, "row_at DESC, known_at"):
        return f"{head} {_back(shown, cause)}"
    return (
        f"{head} Either its sources changed since, and it is to be computed again, or the query "
        f"reads rows more than {FARTHEST.days} days away"
    )


def _reach_too_short(shown: SourceCopies, sight: Sight, difference: RowDifference) -> str:
    subject = shown.subject
    seen = subject.sees(replace(sight, farther=False))
    probe = Probe(shown, difference, sight.known_by)
    before, after = outside(seen, subject.sees(sight))
    if subject.is_of_labels:
        cause = probe.cause(replace(sight, known_by=None), after, "row_at, known_at")
        what, shows = f"the horizon of {subject.reach}", "shown source rows of a longer horizon"
    else:
        cause = probe.cause(sight, before, "row_at DESC, known_at")
        what, shows = f"the lookback of {subject.reach}", "shown source rows of a longer lookback"
    named = f": {cause}" if cause else ""
    return (
        f"{subject.file}: {what} is too short: {shows}, partition {_key(shown, sight)} changes, "
        f"{difference.described('then')}{named}. {_advice(shown)}"
    )


def _ahead(shown: SourceCopies, cause: Cause) -> str:
    if shown.subject.is_of_labels:
        return f"It looks further ahead than the horizon of {shown.subject.reach}: {cause}. " + (
            _advice(shown)
        )
    return (
        f"It looks ahead, over the partition's end: {cause}. A feature may use only rows with "
        "known_at <= its event_time"
    )


def _back(shown: SourceCopies, cause: Cause) -> str:
    if shown.subject.is_of_labels:
        return (
            f"It looks back before its partition: {cause}. Labels are made from source rows of "
            "their partition and of the horizon after it"
        )
    return f"It looks further back than its lookback of {shown.subject.reach}: {cause}. " + (
        _advice(shown)
    )


def _advice(shown: SourceCopies) -> str:
    if shown.subject.is_of_labels:
        return "Lengthen `horizon` of the label"
    return "Lengthen `lookback`, which counts event time: rows that become known late count longer"


def _key(shown: SourceCopies, sight: Sight) -> str:
    return shown.subject.use_case.calendar.key(sight.range)

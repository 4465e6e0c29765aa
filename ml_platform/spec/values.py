"""Checks of single values; each ValueError says what was wrong and what would be right."""

import difflib
import re
from collections import Counter
from collections.abc import Iterable
from datetime import date, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from ml_platform.spec.duration import Duration

# Dagster refuses assets with any other owner.
EMAIL = re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}")
EARLIEST_YEAR = 1900
LATEST_YEAR = 2200


def suggest(name: str, options: Iterable[str]) -> str:
    """The closest option, or all of them, as the end of an error message."""
    options = [str(option) for option in options]
    lowered = {option.lower(): option for option in reversed(options)}
    near = difflib.get_close_matches(str(name).lower(), lowered, 1, cutoff=0.6)
    if near:
        return f". Did you mean '{lowered[near[0]]}'?"
    if not options:
        return ""
    listed = ", ".join(options[:12]) + (", …" if len(options) > 12 else "")
    return f". There {'is' if len(options) == 1 else 'are'}: {listed}"


def is_close(name: str, option: str) -> bool:
    """Whether one is a typo of the other."""
    return bool(difflib.get_close_matches(name.lower(), [option.lower()], 1, cutoff=0.6))


def unknown(kind: str, name: str, options: Iterable[str]) -> str:
    """The message for a name that does not exist."""
    return f"no {kind} '{name}'{suggest(name, options)}"


def no_database(name: str, databases: Iterable[str]) -> str:
    """The message for a database that the setting does not name, with the form that it has."""
    setting = f"""ML_PLATFORM_DATABASES='{{"{name}": "sqlite:<file>"}}'"""
    form = f"{setting} (or postgres:<connection>, mysql:<connection>, delta:<folder>, …)"
    return f"the setting databases, {form}, has {unknown('database', name, databases)}"


def start_of_time(value: object) -> date | datetime:
    """A date or a time, from YAML or as text in ISO 8601."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value) if len(value) > 10 else date.fromisoformat(value)
        except ValueError:
            raise ValueError(f"'{value}' is not a valid date; write 2013-01-31") from None
    if not isinstance(value, date):
        raise ValueError(f"'{value}' is not a valid date; write 2013-01-31")
    if not EARLIEST_YEAR <= value.year <= LATEST_YEAR:
        raise ValueError(f"'{value}' is not between {EARLIEST_YEAR} and {LATEST_YEAR}")
    return value


def end_of_time(value: object) -> date | datetime | None:
    """As `start_of_time`; nothing means that there is no end."""
    return None if value is None else start_of_time(value)


def csv_separator(value: str) -> str:
    """One character that can stand between values."""
    if len(value) != 1 or not value.isascii():
        raise ValueError(f"'{value}' should be one character, such as ';' or a tab, \"\\t\"")
    if value.isalnum() or value in "\"'\r\n\0":
        raise ValueError(f"{value!r} cannot separate values; they often have ';' or \"\\t\"")
    return value


def time_zone(name: str) -> str:
    """A zone of the IANA database."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        zones = {zone.lower(): zone for zone in available_timezones()}
        near = difflib.get_close_matches(name.lower(), zones, 1, cutoff=0.88)
        hint = f". Did you mean '{zones[near[0]]}'?" if near else "; they look like 'Europe/Berlin'"
        raise ValueError(f"no time zone '{name}'{hint}") from None
    return name


def owner(value: str) -> str:
    """An e-mail address, or a team."""
    if value.removeprefix("team:") and (value.startswith("team:") or EMAIL.fullmatch(value)):
        return value
    name = re.sub(r"\W+", "_", value.removeprefix("team:")).strip("_") or "operations"
    raise ValueError(f"'{value}' is neither an e-mail address nor a team such as 'team:{name}'")


def named_once(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names of which none comes twice."""
    if twice := first_repeated(names):
        raise ValueError(f"'{twice}' is there twice; once is enough")
    return names


def first_repeated(names: Iterable[str]) -> str | None:
    """The first of some names that comes again later.

    >>> first_repeated(["a", "b", "c", "b", "a"])
    'a'
    """
    return next((name for name, count in Counter(names).items() if count > 1), None)


def longer_than_nothing(duration: Duration) -> Duration:
    """A duration that is not zero."""
    if duration.count == 0:
        raise ValueError(f"'{duration}' should be longer than nothing, such as 7d")
    return duration


def n_of_m(value: str) -> str:
    """`3 of 5` and the like."""
    match = re.fullmatch(r"(\d+) of (\d+)", value)
    if not match:
        raise ValueError(f"'{value}' should read like '3 of 5'")
    if not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError(f"'{value}' can never be; the first number is from 1 to the second")
    return value

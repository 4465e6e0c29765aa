"""What was planted, and what became of it."""

from dataclasses import dataclass

AS_IT_IS = "nothing"
"""The kind of what is checked besides: the query itself."""
CLEAN = "clean"
NO_ROWS = "no rows"
FOUND, MISSED = "found", "missed"
FALSE_ALARM = "false alarm"
CHANGES_NOTHING = "changes nothing"
KNOWN = "known by then"
MOVED = "moved"
"""The past is no longer what it was."""


@dataclass(frozen=True)
class Plant:
    """A leak in one query, and what became of it."""

    view: str
    """Feature view, `labels` or `training set`."""
    kind: str
    """What was planted; `nothing` is the query itself, in which nothing should be found."""
    rows: int
    """Rows that leak by it, as far as that can be known; without any there is nothing to find."""
    problem: str | None
    """What the check said; None where it said nothing."""
    is_empty: bool = False
    """Whether the query yields no rows, so that nothing was checked."""
    was_known: bool = False
    """Whether what it reads was known at each of hundreds of moments: it is no leak there."""

    @property
    def outcome(self) -> str:
        """What became of it, in a word or two."""
        if self.is_empty:
            return NO_ROWS
        if self.kind == AS_IT_IS:
            return FALSE_ALARM if self.problem else CLEAN
        if self.problem:
            return FOUND
        if self.was_known:
            return KNOWN
        return MISSED if self.rows else CHANGES_NOTHING


@dataclass(frozen=True)
class LateCorrections(Plant):
    """Source rows that were corrected late, and what became of the rows computed from them.

    `rows` counts those known before the corrections that revised values change.
    """

    moved: int = 0
    """Rows that are no longer what they were before the corrections arrived."""
    stale: int = 0
    """Rows that are not what the corrected sources yield, although these have arrived."""
    is_revised: bool = False
    """Whether revised values were taken, with which the past moves."""

    @property
    def outcome(self) -> str:
        if self.moved:
            return MOVED
        if self.stale:
            return "not corrected"
        if self.problem:
            return FALSE_ALARM
        return CLEAN if self.rows else CHANGES_NOTHING

"""What an online store keeps and how it is asked: feature rows by entity, the newest ones."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from ml_platform.errors import NotPublished
from ml_platform.spec.use_case import ONLINE_FEATURES


class OnlineRow(NamedTuple):
    """One row of a feature view; times are microseconds since 1970 in UTC."""

    entity: str
    event_time: int
    payload: bytes


class Lookup(NamedTuple):
    """The question for the latest row of an entity with an event time not after a moment."""

    entity: str
    moment: int


class LookupResult(NamedTuple):
    """The answer to a lookup."""

    event_time: int
    payload: bytes


@dataclass(frozen=True)
class ViewContents:
    """What a view holds as one of its ranges is about to be replaced."""

    newest: int | None
    """Newest event time outside of the range; None where there is no row."""
    windows: frozenset[int]
    """Starts of the windows that were stored, also of those without rows."""


@dataclass(frozen=True)
class Fresh:
    """What a view holds from `start` up to the end of the range from now on."""

    start: int
    """Start of the range, or earlier where windows before it were never stored."""
    rows: Sequence[OnlineRow]
    windows: Collection[int]
    """Starts of the windows that these are the rows of."""
    keep_from: int | None = None
    """Event time before which rows and windows of the view are dropped; None drops nothing."""


class OnlineStore(Protocol):
    """The newest rows of feature tables, by entity, for any number of processes and threads.

    Methods raise OnlineStoreError where the store cannot be reached or refuses.
    """

    def replace(
        self, use_case: str, view: str, start: int, end: int, read: Callable[[ViewContents], Fresh]
    ) -> None:
        """Make the range `[start, end)` of a view hold exactly what `read` says.

        No other writer changes the view between what `read` is given and what is stored, so that
        of two writers the one that read later has the last word. It may be called again.
        Readers see all of the old rows or all of the new ones, also when the writer is killed.
        """

    def forget(
        self,
        use_case: str,
        view: str,
        meant: Callable[[Sequence[str]], Collection[str]],
        *,
        dry_run: bool = False,
    ) -> int:
        """Delete all rows of those entities of a view that are meant; how many entities those are.

        meant: is given entities, and says which of them. dry_run: only count them. Raises
        NotPublished for a view that no range was ever stored of.
        """

    def read(
        self, use_case: str, wanted: Mapping[str, Sequence[Lookup]]
    ) -> dict[str, list[LookupResult | None]]:
        """Answer the lookups of each view, in order, all from one state of the store.

        Raises NotPublished for a view that no range was ever stored of.
        """

    def newest(self, use_case: str, view: str) -> int | None:
        """Event time of a view's newest row; None where it has none. Raises as `read` does."""

    def count(self, use_case: str, view: str) -> int:
        """Rows that are kept of a view. Raises as `read` does."""

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""


def not_published(use_case: str, view: str | None = None) -> NotPublished:
    """The error for a view, or a whole use case, that no range was ever stored of."""
    named = f"{use_case}/{view}" if view else use_case
    return NotPublished(
        f"no features of {named} are in the online store; materialise "
        f"{use_case}/{ONLINE_FEATURES}, or run: ml-platform publish {use_case}"
    )

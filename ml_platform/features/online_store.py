"""What an online store keeps and how it is asked: feature rows by entity, the newest ones."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from ml_platform.errors import NotPublished


class OnlineRow(NamedTuple):
    """One row of a feature view; times are microseconds since 1970 in UTC."""

    entity: str
    event_time: int
    payload: bytes


class Lookup(NamedTuple):
    """The question for the latest row of an entity with an event time not after a moment."""

    entity: str
    moment: int


class Found(NamedTuple):
    """The answer to a lookup."""

    event_time: int
    payload: bytes


@dataclass(frozen=True)
class Fresh:
    """What a stretch of a view is to hold from now on."""

    rows: Sequence[OnlineRow]
    keep_from: int | None
    """Event time before which rows of the view are dropped; None drops nothing."""


class OnlineStore(Protocol):
    """The newest rows of feature tables, by entity, for any number of processes and threads.

    Methods raise OnlineStoreError where the store cannot be reached or refuses.
    """

    def replace(
        self, use_case: str, view: str, start: int, end: int, read: Callable[[int | None], Fresh]
    ) -> None:
        """Make the stretch `[start, end)` of a view hold exactly what `read` says.

        read: is given the newest event time outside of the stretch, None where there is none; no
        other writer changes the view between what it returns and what is stored, so that of two
        writers the one that read later has the last word. May be called again.
        Readers see all of the old rows or all of the new ones, also when the writer is killed.
        """

    def read(
        self, use_case: str, wanted: Mapping[str, Sequence[Lookup]]
    ) -> dict[str, list[Found | None]]:
        """Answer the lookups of each view, in order, all from one state of the store.

        Raises NotPublished for a view that no stretch was ever stored of.
        """

    def newest(self, use_case: str, view: str) -> int | None:
        """Event time of a view's newest row; None where it has none. Raises as `read` does."""

    def count(self, use_case: str, view: str) -> int:
        """Rows that are kept of a view. Raises as `read` does."""

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""


def not_published(use_case: str, view: str | None = None) -> NotPublished:
    """The error for a view, or a whole use case, that no stretch was ever stored of."""
    named = f"{use_case}/{view}" if view else use_case
    return NotPublished(
        f"no features of {named} are in the online store; materialise {use_case}/online_features, "
        f"or run: ml-platform publish {use_case}"
    )

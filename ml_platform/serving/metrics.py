"""What the service counts and times, for Prometheus; workers of one service are added up.

The client library keeps the figures of several processes in the folder that the environment
variable PROMETHEUS_MULTIPROC_DIR names; `serve` makes one. Without it a process counts for itself.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from ml_platform.features import OUTCOMES, Outcome
from ml_platform.serving.versions.live import LiveVersions, VersionSwap

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384)
HTTP = "http"
"""Protocol of connections that are counted; gRPC's library reports none of its own."""
NO_VERSION = 0
"""What a gauge of versions says where there is none; versions begin at 1."""


class Metrics:
    """Figures of one process."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "ml_platform_requests", "Requests answered.", ["use_case", "protocol", "status"],
            registry=registry,
        )  # fmt: skip
        self.errors = Counter(
            "ml_platform_request_errors", "Requests answered with an error, by its kind.",
            ["use_case", "protocol", "kind"], registry=registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "ml_platform_request_seconds", "From the request's first byte to the answer's last.",
            ["use_case", "protocol"], buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self.predict_seconds = Histogram(
            "ml_platform_predict_seconds", "Looking up and predicting of one batch.",
            ["use_case", "role"], buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self.batch_rows = Histogram(
            "ml_platform_batch_rows", "Rows that were predicted together.",
            ["use_case", "role"], buckets=ROWS, registry=registry,
        )  # fmt: skip
        self.rows_waiting = Gauge(
            "ml_platform_rows_waiting", "Rows that waited as the last batch began.",
            registry=registry, multiprocess_mode="livesum",
        )  # fmt: skip
        self.version = Gauge(
            "ml_platform_version", "Version that serves, or is tried (candidate); 0: none.",
            ["use_case", "role"], registry=registry, multiprocess_mode="liveall",
        )  # fmt: skip
        self.version_failed = Gauge(
            "ml_platform_version_failed", "Whether the version that should serve does not.",
            ["use_case"], registry=registry, multiprocess_mode="livemax",
        )  # fmt: skip
        self.swaps = Counter(
            "ml_platform_swaps", "Versions that began to serve or to be tried, or failed to.",
            ["use_case", "outcome"], registry=registry,
        )  # fmt: skip
        self.refresh_failures = Counter(
            "ml_platform_refresh_failures", "Looks at the promotion history that failed.",
            registry=registry,
        )  # fmt: skip
        self.followed_at = Gauge(
            "ml_platform_followed_timestamp_seconds",
            "When the promotion history was last compared with what serves; 0: never.",
            registry=registry, multiprocess_mode="livemin",
        )  # fmt: skip
        self.tried = Counter(
            "ml_platform_tried_requests", "Requests of a shadow or a canary.",
            ["use_case", "mode", "outcome"], registry=registry,
        )  # fmt: skip
        self.log_records = Counter(
            "ml_platform_log_records", "Records of the request log, kept, or lost to a full disk.",
            ["use_case", "outcome"], registry=registry,
        )  # fmt: skip
        self.lookups = Counter(
            "ml_platform_lookups", "Features looked up for rows by key: found, expired, missing.",
            ["use_case", "view", "outcome"], registry=registry,
        )  # fmt: skip
        self.connections = Gauge(
            "ml_platform_connections", "Open connections, those with an unfinished handshake too.",
            ["protocol"], registry=registry, multiprocess_mode="livesum",
        )  # fmt: skip
        self.connections_refused = Counter(
            "ml_platform_connections_refused",
            "Connections that came when there was room for no more: each closed one, or got a 503.",
            ["protocol"], registry=registry,
        )  # fmt: skip
        # A rate needs a sample before the first one.
        self.connections_refused.labels(HTTP)

    def connected(self, many: int) -> None:
        """Say how many connections over HTTP are open now."""
        self.connections.labels(HTTP).set(many)

    def refused_connection(self) -> None:
        """Count a connection over HTTP beyond the limit."""
        self.connections_refused.labels(HTTP).inc()

    def answered(
        self, use_case: str, protocol: str, status: str, seconds: float, error: str
    ) -> None:
        """Count an answer; error: its kind, empty where it is none."""
        self.requests.labels(use_case, protocol, status).inc()
        self.seconds.labels(use_case, protocol).observe(seconds)
        if error:
            self.errors.labels(use_case, protocol, error).inc()

    def log_begins(self, use_case: str) -> None:
        """Show a use case's log with nothing lost: a rate needs a sample before the first loss."""
        for outcome in ("kept", "lost"):
            self.log_records.labels(use_case, outcome)

    def logged(self, use_case: str, records: int, *, kept: bool) -> None:
        """Count records of the request log, and those that could not be written."""
        self.log_records.labels(use_case, "kept" if kept else "lost").inc(records)

    def lookups_begin(self, use_case: str, views: Iterable[str]) -> None:
        """Show that nothing was looked up yet, of which rates are taken."""
        for view in views:
            for outcome in OUTCOMES:
                self.lookups.labels(use_case, view, outcome)

    def looked_up(self, use_case: str, outcomes: Mapping[str, Sequence[Outcome]]) -> None:
        """Count what the look-ups of each view found."""
        for view, found in outcomes.items():
            for outcome in set(found):
                self.lookups.labels(use_case, view, outcome).inc(found.count(outcome))

    def refresh_failed(self) -> None:
        """Count a look at the lake that failed."""
        self.refresh_failures.inc()

    def followed(self) -> None:
        """Say that what serves is what the lake says now."""
        self.followed_at.set_to_current_time()

    def swapped(self, swap: VersionSwap) -> None:
        """Count a swap."""
        self.swaps.labels(swap.use_case, "failed" if swap.problem else "swapped").inc()

    def versions(self, live: LiveVersions) -> None:
        """Say which versions serve now."""
        for name in live.names:
            now = live.of(name)
            champion = now.champion.version if now.champion else NO_VERSION
            candidate = now.candidate.version if now.candidate else NO_VERSION
            self.version.labels(name, "champion").set(champion)
            self.version.labels(name, "candidate").set(candidate)
            self.version_failed.labels(name).set(now.wanted is not None and now.wanted != champion)

    def page(self, more: Iterable[Collector] = ()) -> bytes:
        """Everything in Prometheus' text format, of all workers where there are several."""
        if FOLDER in os.environ:
            shown = CollectorRegistry()
            MultiProcessCollector(shown)  # type: ignore[no-untyped-call]
            pages = [generate_latest(shown)]
        else:
            pages = [generate_latest(self._registry)]
        for collector in more:
            # A registry of their own: what they yield belongs to no process.
            registry = CollectorRegistry(auto_describe=False)
            registry.register(collector)
            pages.append(generate_latest(registry))
        return b"".join(pages)


def forget_dead_workers() -> None:
    """Drop the gauges of workers that are gone, also of those that were killed."""
    if FOLDER not in os.environ:
        return
    for file in Path(os.environ[FOLDER]).glob("gauge_live*_*.db"):
        found = re.search(r"_(\d+)\.db$", file.name)
        if found and not _is_alive(int(found[1])):
            with suppress(FileNotFoundError):
                mark_process_dead(int(found[1]))  # type: ignore[no-untyped-call]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

"""What is kept of every request, written before its answer leaves.

A record a predicted row lands as the source `requests`, one a refused request as `refusals`.
"""

import logging
import secrets
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml_platform.errors import NotKept, ServingMisconfigured
from ml_platform.serving.calls import Call
from ml_platform.serving.metrics import Metrics
from ml_platform.serving.records.outbox import written_below
from ml_platform.serving.records.segments import SegmentWriter, land_orphans
from ml_platform.settings import ServingSettings, Settings
from ml_platform.spec.logged import hashed_value, kept_columns, logged_columns
from ml_platform.spec.serving import Log
from ml_platform.spec.use_case import REFUSALS, REQUESTS, UseCase

Mode = Literal["live", "shadow"]
"""What callers were answered, or what a version on trial said of the same rows."""
LONGEST_DETAIL = 500

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class PredictedRows:
    """Rows that were predicted for one request."""

    call: Call
    model_version: int
    ids: Sequence[str]
    moments: Sequence[int]
    """Event times, in microseconds since 1970 in UTC."""
    inputs: Mapping[str, NDArray[Any]]
    columns: Mapping[str, NDArray[Any]]
    """Prediction columns."""
    keys: Mapping[str, Sequence[str | None]] | None = None
    """Texts of the entity's columns, where rows came by key."""
    mode: Mode = "live"


class RequestLog:
    """The logs of all use cases that declare one; threads may share it.

    Raises ServingMisconfigured where a hash has no key.
    """

    def __init__(
        self,
        settings: Settings,
        serving: ServingSettings,
        use_cases: Iterable[UseCase],
        metrics: Metrics,
    ) -> None:
        self._metrics = metrics
        self._kept: dict[str, _Kept] = {}
        for case in use_cases:
            if case.serving.log is not None:
                folder = written_below(settings, case)
                self._kept[case.name] = _Kept(case, case.serving.log, folder, serving)
                metrics.log_begins(case.name)

    def keeps(self, name: str) -> bool:
        """Whether a use case has a log."""
        return name in self._kept

    def answered(self, name: str, predicted: Sequence[PredictedRows]) -> None:
        """Keep predictions; returns when they would survive the end of this process."""
        if kept := self._kept.get(name):
            chosen = [each for each in predicted if kept.is_sampled(each.call)]
            rows = sum(len(each.ids) for each in chosen)
            self._write(name, kept.requests, rows, lambda: kept.lines(chosen))

    def refused(self, name: str, call: Call, error: Exception, version: int | None) -> None:
        """Keep that a request got no prediction, and why."""
        kept = self._kept.get(name)
        if kept and kept.is_sampled(call):
            self._write(name, kept.refusals, 1, lambda: kept.refusal(call, error, version))

    @contextmanager
    def watching(self, name: str, call: Call, version: Callable[[], int | None]) -> Iterator[Call]:
        """Keep that a request failed, should it do so in this context; the error propagates."""
        try:
            yield call
        except Exception as error:
            self.refused(name, call, error, version())
            raise

    def land_old(self) -> None:
        """Land files that are old enough."""
        for kept in self._kept.values():
            kept.requests.land_old()
            kept.refusals.land_old()

    def close(self) -> None:
        """Land everything."""
        for kept in self._kept.values():
            kept.requests.close()
            kept.refusals.close()

    def _write(
        self, name: str, segments: SegmentWriter, records: int, lines: Callable[[], bytes]
    ) -> None:
        if not records:
            return
        try:
            segments.append(lines())
            self._metrics.logged(name, records, kept=True)
        except NotKept as error:
            # Whoever asked is answered; that the log has a gap is said here and counted.
            self._metrics.logged(name, records, kept=False)
            LOG.error("%d records are not logged: %s", records, error)


@dataclass
class _Kept:
    """How the requests of one use case are kept."""

    case: UseCase
    log: Log
    folder: Path
    serving: ServingSettings
    requests: SegmentWriter = field(init=False)
    refusals: SegmentWriter = field(init=False)

    def __post_init__(self) -> None:
        secret = self.serving.log_secret
        if self.log.hashed and secret is None:
            raise ServingMisconfigured(
                f"{self.case.name} hashes {', '.join(self.log.hashed)}: set "
                "ML_PLATFORM_SERVING_LOG_SECRET to a long random text, the same on every machine"
            )
        self._secret = secret.get_secret_value().encode() if secret else b""
        self._columns = tuple(logged_columns(self.case))
        self._entity = self.case.examples.entity
        self._rows = kept_columns(self.case)
        self._encode = msgspec.json.Encoder()
        limits = self.serving.log_bytes, self.serving.log_seconds
        self.requests = SegmentWriter(self.folder / REQUESTS, *limits)
        self.refusals = SegmentWriter(self.folder / REFUSALS, *limits)
        for segments in (self.requests, self.refusals):
            land_orphans(segments.folder)

    def is_sampled(self, call: Call) -> bool:
        """Whether a request is kept; the same on every worker."""
        return zlib.crc32(call.request_id.encode()) < self.log.sample * (1 << 32)

    def lines(self, predicted: Sequence[PredictedRows]) -> bytes:
        """A line for each row."""
        rows = [row for each in predicted for row in self._records(each)]
        return self._encode.encode_lines(rows)

    def _records(self, each: PredictedRows) -> list[dict[str, Any]]:
        rows, call = len(each.ids), each.call
        columns: dict[str, Sequence[Any]] = {
            "prediction_id": each.ids,
            "request_id": [call.request_id] * rows,
            "event_time": _instants(each.moments),
            "answered_at": [datetime.now(UTC)] * rows,
            "latency_ms": [call.milliseconds] * rows,
            "protocol": [call.protocol] * rows,
            "caller": [call.caller] * rows,
            "mode": [each.mode] * rows,
            "model_version": [each.model_version] * rows,
            "by_key": [each.keys is not None] * rows,
        }
        keys = each.keys or {}
        for name in self._rows:
            if name in self._entity:
                columns[name] = keys.get(name) or [None] * rows
            elif name in each.columns:
                columns[name] = _plain(each.columns[name])
            elif name in each.inputs:
                columns[name] = _plain(each.inputs[name])
            else:
                # A champion may be older than a feature that was added since.
                columns[name] = [None] * rows
        for name in self.log.hashed:
            columns[name] = [self._hashed(name, value) for value in columns[name]]
        kept = [columns[name] for name in self._columns]
        return [dict(zip(self._columns, row, strict=True)) for row in zip(*kept, strict=True)]

    def refusal(self, call: Call, error: Exception, version: int | None) -> bytes:
        """A line about a request that got no prediction."""
        detail = str(error)
        if self.log.hashed or self.log.left_out:
            # What was wrong with a value often repeats the value.
            column = getattr(error, "column", None)
            detail = f"column '{column}'" if column in self._rows else ""
        caller = None if "caller" in self.log.left_out else call.caller
        if "caller" in self.log.hashed:
            caller = self._hashed("caller", caller)
        record = {
            "refusal_id": secrets.token_hex(16),
            "request_id": call.request_id,
            "answered_at": datetime.now(UTC),
            "latency_ms": call.milliseconds,
            "protocol": call.protocol,
            "caller": caller,
            "model_version": version,
            "error": type(error).__name__,
            "detail": detail[:LONGEST_DETAIL],
        }
        return self._encode.encode_lines([record])

    def _hashed(self, column: str, value: Any) -> str | None:
        return hashed_value(self._secret, column, value)


def _instants(moments: Sequence[int]) -> list[str]:
    times = np.asarray(moments, dtype="datetime64[us]")
    return [f"{time}+00:00" for time in np.datetime_as_string(times).tolist()]


def _plain(values: NDArray[Any]) -> list[Any]:
    plain: list[Any] = values.tolist()
    if plain and isinstance(plain[0], dict):
        return [msgspec.json.encode(value).decode() for value in plain]
    return plain

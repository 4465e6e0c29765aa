"""Sources that the service itself writes: requests, those that it refused, feedback.

They land as files like any other source, so everything that holds for sources holds for them.
"""

import hashlib
import hmac
import math

from ml_platform.spec.inputs import Source
from ml_platform.spec.mistakes import Mistakes
from ml_platform.spec.queries import is_numeric
from ml_platform.spec.use_case import FEEDBACK, REFUSALS, REQUESTS, UseCase
from ml_platform.spec.values import unknown

HASH_DIGITS = 32
STAMPS = {
    "prediction_id": "VARCHAR",
    "request_id": "VARCHAR",
    "event_time": "TIMESTAMPTZ",
    "answered_at": "TIMESTAMPTZ",
    "latency_ms": "DOUBLE",
    "protocol": "VARCHAR",
    "caller": "VARCHAR",
    "mode": "VARCHAR",
    "model_version": "INTEGER",
    "by_key": "BOOLEAN",
}
"""What is kept of every predicted row beside its columns."""
REFUSED = {
    "refusal_id": "VARCHAR",
    "request_id": "VARCHAR",
    "answered_at": "TIMESTAMPTZ",
    "latency_ms": "DOUBLE",
    "protocol": "VARCHAR",
    "caller": "VARCHAR",
    "model_version": "INTEGER",
    "error": "VARCHAR",
    "detail": "VARCHAR",
}
LABEL_TYPES = {"binary": "BOOLEAN", "multiclass": "VARCHAR", "regression": "DOUBLE"}


def with_logged_sources(use_case: UseCase, mistakes: Mistakes) -> UseCase:
    """As `logged_sources_added`, where nothing is wrong with them; raises SpecErrors."""
    _check(use_case, mistakes)
    mistakes.stop()
    return logged_sources_added(use_case)


def logged_sources_added(use_case: UseCase) -> UseCase:
    """The use case with the sources that its service writes; nothing but SQL is left to bind."""
    sources = dict(use_case.sources)
    if use_case.serving.log is not None:
        sources[REQUESTS] = Source(
            files=f"{REQUESTS}/*.jsonl",
            event_time="event_time",
            known_at="answered_at",
            key=("prediction_id",),
            columns=logged_columns(use_case),
            required=("answered_at", "model_version"),
            description="Rows that were predicted on request, as the service answered them.",
        )
        sources[REFUSALS] = Source(
            files=f"{REFUSALS}/*.jsonl",
            event_time="answered_at",
            key=("refusal_id",),
            columns=REFUSED,
            required=("error",),
            description="Requests that the service could not answer, and why.",
        )
    if use_case.takes_feedback:
        sources[FEEDBACK] = Source(
            files=f"{FEEDBACK}/*.jsonl",
            event_time="event_time",
            known_at="known_at",
            key=("feedback_id",),
            columns=feedback_columns(use_case),
            required=("kind", "origin", "known_at", "received_at"),
            rules=("kind = 'skip' OR known_at >= event_time",),
            description="What callers and reviewers said of predictions, as it came.",
        )
    return use_case.model_copy(update={"sources": sources})


def logged_columns(use_case: UseCase) -> dict[str, str]:
    """Columns of `requests`, with DuckDB types: stamps, entity, model columns, predictions."""
    log = use_case.serving.log
    hashed, left_out = (log.hashed, log.left_out) if log else ((), ())
    columns = {**STAMPS, **kept_columns(use_case)}
    return {
        name: "VARCHAR" if name in hashed else kind
        for name, kind in columns.items()
        if name not in left_out
    }


def hashed_value(secret: bytes, column: str, value: object) -> str | None:
    """What stands for a value in a hashed column of the log; None where there is no value."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    text = f"{column}\0{value}".encode()
    return hmac.new(secret, text, hashlib.sha256).hexdigest()[:HASH_DIGITS]


def kept_columns(use_case: UseCase) -> dict[str, str]:
    """What is kept of a row if nothing is hashed or left out.

    Inputs are kept as the model is given them; probabilities by class are JSON text.
    """
    inputs = {
        name: "DOUBLE" if is_numeric(kind) else "VARCHAR"
        for name, kind in use_case.model_columns.items()
    }
    predicted = {
        name: "VARCHAR" if kind.startswith("MAP") else kind
        for name, kind in use_case.prediction_columns.items()
    }
    return {**_entity(use_case), **inputs, **predicted}


def feedback_columns(use_case: UseCase) -> dict[str, str]:
    """Columns of `feedback`, with DuckDB types; a row names a prediction or an entity."""
    return {
        "feedback_id": "VARCHAR",
        "prediction_id": "VARCHAR",
        **_entity(use_case),
        "event_time": "TIMESTAMPTZ",
        "label": LABEL_TYPES[use_case.label.task],
        "kind": "VARCHAR",
        "origin": "VARCHAR",
        "given_by": "VARCHAR",
        "known_at": "TIMESTAMPTZ",
        "received_at": "TIMESTAMPTZ",
    }


def readable_columns(use_case: UseCase) -> frozenset[str]:
    """Columns of a row that are kept as they are: neither hashed nor left out."""
    log = use_case.serving.log
    hidden = {*log.hashed, *log.left_out} if log else set()
    return frozenset(kept_columns(use_case).keys() - hidden)


def _entity(use_case: UseCase) -> dict[str, str]:
    source = use_case.sources[use_case.examples.source]
    return {column: source.columns[column] for column in use_case.examples.entity}


def _check(use_case: UseCase, mistakes: Mistakes) -> None:
    serving, task = use_case.serving, use_case.label.task
    if serving.log is not None:
        for column in kept_columns(use_case).keys() & STAMPS.keys():
            problem = f"'{column}' is a column of the log; name the column of the model otherwise"
            mistakes.add(("serving", "log"), problem)
        allowed = {**_entity(use_case), **use_case.model_columns, "caller": ""}
        for key in ("hashed", "left_out"):
            for index, column in enumerate(getattr(serving.log, key)):
                if column not in allowed:
                    problem = unknown("column of requests", column, allowed)
                    mistakes.add(("serving", "log", key, index), problem)
    if serving.review is None:
        return
    path = ("serving", "review")
    if serving.log is None:
        mistakes.add(path, "reviews what was logged; declare `serving.log: {}` too")
    given = {key for key in ("uncertain", "below") if getattr(serving.review, key) is not None}
    wanted = {"binary": "uncertain", "multiclass": "below"}.get(task)
    if wanted is None:
        mistakes.add(
            path, f"is not offered for {task}: its predictions do not say how sure they are"
        )
    elif given != {wanted}:
        example = "[0.4, 0.6]" if wanted == "uncertain" else "0.6"
        mistakes.add(path, f"for a {task} label it should say `{wanted}: {example}`")
    bounds = serving.review.uncertain
    if bounds and bounds[0] > bounds[1]:
        mistakes.add((*path, "uncertain"), f"{list(bounds)} should ascend")

"""Texts of a new use case's files."""

import json
from typing import Any

from ml_platform.spec.declared import Metric, Task
from ml_platform.spec.queries import literal
from ml_platform.spec.scaffold.csv_table import NULLS
from ml_platform.spec.scaffold.draft import Draft, identifier, one_line, slug
from ml_platform.spec.scaffold.rendering import render

METRIC: dict[Task, Metric] = {"binary": "roc_auc", "multiclass": "log_loss", "regression": "mae"}
MOST_SHARES = 6


def texts_of(draft: Draft) -> dict[str, str]:
    """Texts by their paths in the folder of the use case."""
    guess, sizes = draft.guess, draft.sizes
    sums, features = _history(draft)
    rows = guess.rhythm.rows
    values: dict[str, Any] = {
        "draft": draft, "guess": guess, "sizes": sizes, "reasons": guess.reasons,
        "metric": METRIC[guess.task],
        "drift_rows": max(10, min(200, rows * sizes.watched // 2)),
        "performance_rows": max(1, min(30, rows // 2)),
        "can_be_given": any(name not in draft.profile.left_out for name in guess.left_out),
        "strengths": ", ".join(
            f"{one_line(name)} {share:.2f}"
            for name, share in guess.strengths.items()
            if name in guess.columns
        ),
        "kinds": {n: "TIMESTAMPTZ" if n == guess.event_time else column.kind
                  for n, column in draft.profile.columns.items()},
        "notes": {name: note for name, note in draft.profile.notes.items() if note},
        "group": identifier(guess.group) if draft.group_is_column else guess.group,
        "sums": sums, "features": features, "label": _label(draft),
        **_as_written(draft),
    }  # fmt: skip
    texts = render("use_case_files", values)
    return {f"features/{draft.view}.sql": texts.pop("view.sql"), **texts}


def _as_written(draft: Draft) -> dict[str, str]:
    """How CSV files are written, as JSON; empty where it is the usual way."""
    found = draft.profile.csv
    if found is None:
        return {"csv": "", "null_values": ""}
    said = found.written.model_dump(mode="json", exclude_defaults=True)
    shown = ", ".join(f"{key}: {json.dumps(value)}" for key, value in said.items())
    nulls = json.dumps(list(found.null_values), ensure_ascii=False)
    return {
        "csv": f"{{{shown}}}" if said else "",
        "null_values": nulls if found.null_values != NULLS else "",
    }


def _label(draft: Draft) -> str:
    column = identifier(draft.guess.label)
    match draft.guess.task:
        case "binary":
            return _is_positive(draft)
        case "multiclass":
            return f"CAST({column} AS VARCHAR)"
        case "regression":
            return f"CAST({column} AS DOUBLE)"


def _history(draft: Draft) -> tuple[list[str], list[str]]:
    """Select items of what a moment makes known, and of the features made of that."""
    label = identifier(draft.guess.label)
    match draft.guess.task:
        case "binary":
            parts = {"share": _is_positive(draft)}
        case "multiclass":
            shown = draft.guess.classes[:MOST_SHARES]
            parts = {
                f"share_of_{slug(name)}": f"CAST({label} AS VARCHAR) = {literal(name)}"
                for name in shown
            }
        case "regression":
            total = f"CAST(sum({label}) AS DOUBLE) AS total"
            return [total], [
                "sum(total) OVER recent / sum(times) OVER recent AS mean_known",
                "total / times AS last_known",
            ]
    sums = [f"CAST(count(*) FILTER ({sql}) AS DOUBLE) AS {n}" for n, sql in parts.items()]
    return sums, [f"sum({n}) OVER recent / sum(times) OVER recent AS {n}_known" for n in parts]


def _is_positive(draft: Draft) -> str:
    column = draft.profile.columns[draft.guess.label]
    (positive,) = draft.guess.classes
    if column.kind == "BOOLEAN":
        return identifier(column.name)
    value = positive if column.is_number else literal(positive)
    return f"{identifier(column.name)} = {value}"

"""Texts of a new use case's files."""

import json
from collections.abc import Mapping

from ml_platform.spec.declared import Metric, Task
from ml_platform.spec.queries import literal
from ml_platform.spec.scaffold.csv_table import NULLS
from ml_platform.spec.scaffold.draft import Draft, identifier, one_line, scalar, slug

METRIC: dict[Task, Metric] = {"binary": "roc_auc", "multiclass": "log_loss", "regression": "mae"}
MOST_SHARES = 6


def spec_text(draft: Draft) -> str:
    """The text of use_case.yaml."""
    guess, pace, sizes, reasons = draft.guess, draft.pace, draft.sizes, draft.guess.reasons
    entity = ", ".join(scalar(name) for name in draft.entity)
    key = ", ".join(scalar(name) for name in guess.key)
    group = scalar(guess.group)
    time = scalar(guess.event_time)
    files = scalar(draft.files)
    written = _written(draft)
    cadence = guess.rhythm.cadence
    start = f"{draft.start:%Y-%m-%d}"
    left_out = _listed("Not given to the model:", guess.left_out)
    if any(name not in draft.profile.left_out for name in guess.left_out):
        left_out += "# `ml-platform new --input COLUMN` gives it one that is known all the same.\n"
    doubted = _listed("WARNING, given because you said so:", guess.doubted)
    strengths = ", ".join(
        f"{one_line(name)} {share:.2f}"
        for name, share in guess.strengths.items()
        if name in guess.columns
    )
    strengths = f"# How much each alone says of {draft.label}, from 0 to 1:\n#   {strengths}\n"
    strengths = strengths if guess.columns else ""
    request = "".join(f"    - {scalar(item)}\n" for item in draft.request)
    return f"""\
# Guessed by `ml-platform new` from the {draft.profile.rows:,} rows of {draft.profile.said.name}.
# Each guess says why. Change here what is wrong, then try `ml-platform check {draft.name}`.
description: {scalar(f"What will {draft.label} be?")}
owners: []  # who answers for it: an e-mail address, or team:name

# {cadence.capitalize()}: {reasons["cadence"]}.
{_strays(draft)}partitions: {{cadence: {cadence}, start: {start}, timezone: {draft.timezone}}}

# What lands is read by two sources: what is known when a row happens, and what is known only later.
sources:
  records:
    files: {files}
{written}    event_time: {time}  # {reasons["event_time"]}
    key: [{key}]  # {reasons["key"]}
    columns:
{_columns(draft, draft.source_columns)}\
  outcomes:
    files: {files}
{written}    event_time: {time}
    # ASSUMED: the file does not say when {draft.label} became known. One window after the event is
    # on the safe side unless it takes longer; if it does, write so here and in label.horizon.
    known_at: {scalar(f"{identifier(guess.event_time)} + INTERVAL {pace.interval}")}
    key: [{key}]
    columns:
{_columns(draft, draft.outcome_columns)}
features:
  # By {draft.group}: {reasons["group"]}.
  {draft.view}:
    entity: [{group}]
    lookback: {draft.span(sizes.recent + 2)}  # as much history, and until it is known
    ttl: {draft.span(sizes.recent)}

# ASSUMED: all these are known at {one_line(guess.event_time)}. A column that is filled in later
# shows the model what it could not know: take it out.
{left_out}{doubted}{strengths}\
examples:
  source: records
  entity: [{entity}]
  columns:
{request}
# {draft.label}: {reasons["label"]}.
# {guess.task}: {reasons["task"]}.
label: {{sql: labels.sql, task: {guess.task}, horizon: {draft.span(1)}}}
model:
  build: model:build
  metric: {METRIC[guess.task]}
  window: {draft.span(sizes.window)}  # about half of the history, so that the rest can judge
  holdout: {draft.span(sizes.holdout)}
  min_rows: {sizes.min_rows}
  schedule: {scalar(pace.schedule)}
monitoring:
  window: {draft.span(sizes.watched)}
  drift: {{min_rows: {max(10, min(200, guess.rhythm.rows * sizes.watched // 2))}}}
  # Once the first reports show what is normal, add its bounds: min or max.
  performance: {{min_rows: {max(1, min(30, guess.rhythm.rows // 2))}}}
retrain: {{on: [drift, schedule], sustained: 3 of 5, cooldown: {draft.span(pace.cooldown)}}}
serving:
  # The model takes texts that it has not seen for missing. Refuse such requests where a new text is
  # rather a mistake of the caller.
  unknown_categories: accept
"""


def view_text(draft: Draft) -> str:
    """The text of features/<view>.sql."""
    group = draft.guess.group if not draft.group_is_column else identifier(draft.guess.group)
    sums, features = _history(draft)
    hours = draft.sizes.recent * draft.pace.hours
    not_null = f"\n    WHERE {group} IS NOT NULL" if draft.group_is_column else ""
    return f"""\
-- What was known of {draft.label}, by {draft.group}, of the last {draft.span(draft.sizes.recent)}.
-- A row appears when it becomes known, not when it happened, so nothing of the future is in it.
WITH
known AS (
    -- One row a moment: what becomes known together counts together.
    SELECT
        {draft.group_sql},
        known_at,
        CAST(count({identifier(draft.guess.label)}) AS DOUBLE) AS times,
{_indented(sums, 8)}
    FROM outcomes{not_null}
    GROUP BY ALL
    HAVING times > 0
)

SELECT
    {group},
    known_at AS event_time,
{_indented(features, 4)}
FROM known
WINDOW recent AS (
    PARTITION BY {group}
    ORDER BY known_at RANGE BETWEEN INTERVAL {hours} HOURS PRECEDING AND CURRENT ROW
)
"""


def labels_text(draft: Draft) -> str:
    """The text of labels.sql."""
    column = identifier(draft.guess.label)
    entity = "".join(f"    {identifier(name)},\n" for name in draft.entity)
    match draft.guess.task:
        case "binary":
            label = _is_positive(draft)
        case "multiclass":
            label = f"CAST({column} AS VARCHAR)"
        case "regression":
            label = f"CAST({column} AS DOUBLE)"
    return f"""\
-- What is to be predicted, and from when on it is known (see known_at in use_case.yaml).
SELECT
{entity}    {identifier(draft.guess.event_time)} AS event_time,
    {label} AS label,
    known_at
FROM outcomes
WHERE {column} IS NOT NULL
"""


def model_text(draft: Draft) -> str:
    """The text of model.py."""
    kind = "Regressor" if draft.guess.task == "regression" else "Classifier"
    return f'''\
"""The estimator that is fitted on every training set."""

from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoosting{kind}
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OrdinalEncoder


def build() -> Pipeline:
    """Gradient boosted trees; texts become numbers, what is missing or new stays missing."""
    texts = OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=float("nan"), min_frequency=2
    )
    columns = make_column_transformer(
        (texts, make_column_selector(dtype_include=object)), remainder="passthrough"
    )
    # Few leaves and slow learning: a new table is often small, and its last part is what counts.
    trees = HistGradientBoosting{kind}(
        learning_rate=0.05, max_leaf_nodes=15, early_stopping=False, random_state=0
    )
    return make_pipeline(columns, trees)
'''


def readme_text(draft: Draft) -> str:
    """The text of README.md."""
    guess, reasons = draft.guess, draft.guess.reasons
    guesses = {
        "event time": (guess.event_time, reasons["event_time"]),
        "key": (", ".join(guess.key), reasons["key"]),
        "label": (guess.label, reasons["label"]),
        "task": (guess.task, reasons["task"]),
        "cadence": (guess.rhythm.cadence, reasons["cadence"]),
        "history by": (guess.group, reasons["group"]),
    }
    rows = "\n".join(f"| {what} | `{value}` | {why} |" for what, (value, why) in guesses.items())
    return f"""\
# {draft.name}

Predicts `{draft.label}` of the rows of `{draft.profile.said.name}`: {draft.profile.rows:,} rows,
from {guess.first} to {guess.last}.

## What was guessed

| what | guess | why |
| --- | --- | --- |
{rows}

## What was assumed, and is yours to check

- `{draft.label}` is known {draft.pace.interval} after the event. Where it takes longer, the
  model would be trained on labels that it cannot have yet: change `known_at` in `use_case.yaml`.
- Every column in `examples.columns` is known at the event.
- A time without an offset is a time of {draft.timezone}.

## Where to change what

`use_case.yaml` says what is read, when and how often; `features/{draft.view}.sql` what the model
knows of the past; `labels.sql` what it learns to predict; `model.py` how. New files of the same
columns land in `records/`, in the landing folder of the use case.
"""


def _listed(heading: str, reasons: Mapping[str, str]) -> str:
    """A comment with a line for each column, or nothing."""
    lines = "".join(f"#   {one_line(name)}: {why}\n" for name, why in reasons.items())
    return f"# {heading}\n{lines}" if lines else ""


def _strays(draft: Draft) -> str:
    """Comments on rows that lie far away from all others."""
    (early, earliest), (late, latest) = draft.guess.span.early, draft.guess.span.late
    text = ""
    if early:
        text += f"# {early} rows lie far before it, the first on {earliest}: quarantined.\n"
    if late:
        text += f"# {late} rows lie far after the others, the last on {latest}.\n"
    return text


def _written(draft: Draft) -> str:
    """How CSV files are written, as lines of a source; none where it is the usual way."""
    found = draft.profile.csv
    if found is None:
        return ""
    lines = []
    said = found.written.model_dump(mode="json", exclude_defaults=True)
    if said:
        shown = ", ".join(f"{key}: {json.dumps(value)}" for key, value in said.items())
        lines.append(f"    csv: {{{shown}}}  # as the values are written\n")
    if found.null_values != NULLS:
        shown = json.dumps(list(found.null_values), ensure_ascii=False)
        lines.append(
            f"    null_values: {shown}  # in all columns; else their rows are quarantined\n"
        )
    return "".join(lines)


def _columns(draft: Draft, names: tuple[str, ...]) -> str:
    lines = []
    for name in names:
        kind = draft.profile.columns[name].kind
        if name == draft.guess.event_time:
            kind = "TIMESTAMPTZ"
        note = draft.profile.notes.get(name)
        comment = f"  # {one_line(note)}" if note else ""
        lines.append(f"      {scalar(name)}: {scalar(kind)}{comment}\n")
    return "".join(lines)


def _history(draft: Draft) -> tuple[list[str], list[str]]:
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


def _indented(lines: list[str], spaces: int) -> str:
    return ",\n".join(" " * spaces + line for line in lines)

"""The select items of publications, bound to predictions and their examples, or to features."""

from collections.abc import Iterable, Set

import duckdb

from ml_platform.spec.lineage import columns_read
from ml_platform.spec.mistakes import Mistakes
from ml_platform.spec.publication import Publication, is_portable
from ml_platform.spec.queries import QueryChecker, complaint, quote
from ml_platform.spec.use_case import UseCase, feature_table
from ml_platform.spec.values import unknown
from ml_platform.spec.yaml_text import PathInDocument

RELATION = "predictions"
STAMPS = {"model_version": "INTEGER", "snapshot": "BIGINT", "scored_at": "TIMESTAMPTZ"}


def prediction_types(use_case: UseCase) -> dict[str, str]:
    """Columns of a prediction, with DuckDB types."""
    source = use_case.sources[use_case.examples.source]
    entity = {column: source.columns[column] for column in use_case.examples.entity}
    return {
        **entity, "event_time": "TIMESTAMPTZ", **use_case.prediction_columns, **STAMPS
    }  # fmt: skip


def example_types(use_case: UseCase) -> dict[str, str]:
    """Columns of an example that are not the prediction's own: those of the model, then the row's.

    A column of the model that is computed has the name that the model knows it by.
    """
    examples = use_case.examples
    source = use_case.sources[examples.source]
    columns = {**source.columns, "known_at": "TIMESTAMPTZ", **examples.request}
    taken = prediction_types(use_case)
    return {column: kind for column, kind in columns.items() if column not in taken}


def feature_types(use_case: UseCase, view: str) -> dict[str, str]:
    """Columns of a feature view's rows, with DuckDB types."""
    examples, declared = use_case.examples, use_case.features[view]
    known = {**use_case.sources[examples.source].columns, **examples.request}
    entity = {column: known[column] for column in declared.entity}
    return {**entity, "event_time": "TIMESTAMPTZ", **declared.features}


def bind_publications(use_case: UseCase, checker: QueryChecker, mistakes: Mistakes) -> UseCase:
    """The use case with what its publications yield filled in; mistakes are added."""
    if not use_case.publish:
        return use_case
    predicted = prediction_types(use_case)
    checker.create(RELATION, {**predicted, **example_types(use_case)})
    views = {each.features for each in use_case.publish.values() if each.features}
    for view in views & use_case.features.keys():
        checker.create(feature_table(view), feature_types(use_case, view))
    bound = {
        name: _bound(use_case, ("publish", name), publication, checker, mistakes)
        for name, publication in use_case.publish.items()
    }
    return use_case.model_copy(update={"publish": bound})


def _bound(
    use_case: UseCase,
    path: PathInDocument,
    publication: Publication,
    checker: QueryChecker,
    mistakes: Mistakes,
) -> Publication:
    view = publication.features
    if view is not None and (wrong := _view_problem(use_case, publication, view)):
        mistakes.add((*path, wrong[0]), wrong[1])
        return publication
    relation = feature_table(view) if view else RELATION
    items = list(publication.columns or _default_items(use_case, view))
    checker.bind_items(relation, items)
    types: dict[str, str] = {}
    taken: set[str] = set()
    for index, item in enumerate(items):
        place = (*path, "columns", index)
        try:
            found = checker.items(relation, item)
        except duckdb.Error as error:
            mistakes.add(place, complaint(error))
            continue
        for problem in _problems(found, taken):
            mistakes.add(place, problem)
        types |= found
        taken |= {name.lower() for name in found}
    if publication.mode == "append" and "snapshot" not in types:
        # It distinguishes what is appended of a partition whose predictions have changed.
        items.append("snapshot")
        types["snapshot"] = STAMPS["snapshot"]
    key = _key(use_case, publication)
    _check_names(path, publication, key, types, mistakes)
    examples = example_types(use_case)
    return publication.model_copy(
        update={
            "items": tuple(items),
            "types": types,
            "keyed_by": key,
            "reads": relation,
            "reads_example": view is None
            and bool(
                set(columns_read(items, [*prediction_types(use_case), *examples])) & examples.keys()
            ),
        }
    )


def _view_problem(use_case: UseCase, publication: Publication, view: str) -> tuple[str, str] | None:
    """What is wrong with publishing a feature view, and which key says so."""
    if view not in use_case.features:
        return "features", unknown("feature view", view, use_case.features)
    if publication.mode == "append":
        problem = "'append' is about predictions, which say at which snapshot they were made"
        return "mode", f"{problem}; take `mode: replace` or `mode: upsert`"
    return None


def _default_items(use_case: UseCase, view: str | None) -> Iterable[str]:
    if view:
        return map(quote, feature_types(use_case, view))
    plain = [c for c, kind in use_case.prediction_columns.items() if is_portable(kind)]
    names = (*use_case.examples.entity, "event_time", *plain, "model_version")
    return (quote(name) for name in names)


def _key(use_case: UseCase, publication: Publication) -> tuple[str, ...]:
    entity = use_case.examples.entity
    if publication.features:
        entity = use_case.features[publication.features].entity
    key = publication.key or (*entity, "event_time")
    return tuple(dict.fromkeys((*key, "snapshot"))) if publication.mode == "append" else key


def _problems(found: dict[str, str], taken: Set[str]) -> Iterable[str]:
    for name, kind in found.items():
        if name.lower() in taken:
            yield f"there is a column '{name}' already; name one of them otherwise"
        if not is_portable(kind):
            yield (
                f"'{name}' is {kind}, which columns of many databases cannot hold; publish parts "
                f"of it, or to_json({name})::VARCHAR AS {name}"
            )


def _check_names(
    path: PathInDocument,
    publication: Publication,
    key: tuple[str, ...],
    types: dict[str, str],
    mistakes: Mistakes,
) -> None:
    if types.get("event_time") != "TIMESTAMP WITH TIME ZONE":
        problem = "should hold `event_time`, by which partitions are distinguished; add it"
        mistakes.add((*path, "columns"), problem)
    for column in key:
        if column not in types:
            mistakes.add((*path, "key"), unknown("column", column, types))
    if publication.mode != "upsert" and "event_time" not in key:
        problem = (
            f"lacks `event_time`; with mode {publication.mode} a table holds a row for each; "
            "add it, or take `mode: upsert`"
        )
        mistakes.add((*path, "key"), problem)
    for column in publication.lengths:
        if types.get(column, "VARCHAR") not in {"VARCHAR", "JSON"} or column not in types:
            problem = unknown("column of text", column, types)
            mistakes.add((*path, "lengths", column), problem)

"""What people decide on pages: whether a challenger serves, what an uncertain prediction was."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from ml_platform.access import Action, Audit, Caller
from ml_platform.errors import RequestRefused
from ml_platform.registry import answer, repair, served_classes
from ml_platform.serving.records.answers import answering
from ml_platform.serving.records.feedback import REVIEW, Said
from ml_platform.serving.records.items import read_label
from ml_platform.serving.records.review import ReviewQueue, Uncertain
from ml_platform.settings import ServingSettings
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Commit
from ml_platform.web.site import Site, path_to, shown_moment

LISTED = 50
"""Of the predictions that wait; the first of them is asked about."""
SKIP = "skip"


def decide(
    site: Site, name: str, version: int, by: str, caller: Caller, fields: Mapping[str, str]
) -> str:
    """Answer about a challenger that waits; the page that says what was decided.

    fields: `decision`, approve or reject, and `reason`. Raises RequestRefused, and what
    `ml_platform.registry.answer` does.
    """
    case = site.use_case(name)
    decision, reason = fields.get("decision", ""), fields.get("reason", "").strip()
    if decision not in {"approve", "reject"}:
        raise RequestRefused("choose whether to approve or to reject", "decision")
    if not reason:
        raise RequestRefused("say why: the reason stands in the history", "reason")
    details = {"reason": reason, **caller.details}
    action = Action(by, "pages", decision, case.name, f"version {version}", details)
    commit = Commit(
        "pages", case.code_version, f"{case.name}/promotions", also=Audit(site.lake).along(action)
    )
    # Before anything is refused: whoever decided last may have died before the alias was set.
    repair(site.lake, site.registry, case)
    answer(
        site.lake, site.registry, case, version, approve=decision == "approve", decided_by=by,
        reason=reason, commit=commit,
    )  # fmt: skip
    return path_to(case, "versions", version)


def review_page(site: Site, name: str, by: str) -> dict[str, Any]:
    """The newest prediction that waits for a person, and which others do.

    by: who answers, as they have said before. Raises NotServed where nothing is reviewed.
    """
    case = site.use_case(name)
    found = ReviewQueue(site.lake, [case]).waiting(name, LISTED)
    return {
        "case": case,
        "by": by,
        "count": f"{LISTED} or more" if len(found) == LISTED else str(len(found)),
        "asked": _asked(case, found[0]) if found else None,
        "others": [_asked(case, each) for each in found[1:]],
        "choices": _choices(site, case) if found else [],
    }


def _asked(case: UseCase, each: Uncertain) -> dict[str, Any]:
    # What was looked up is many numbers that a person cannot judge.
    features = case.model_columns.keys() - case.examples.request.keys()
    return {
        "id": each.prediction_id,
        "at": shown_moment(case, each.answered_at),
        "columns": [(n, v) for n, v in each.columns.items() if n not in features],
        "features": [(n, v) for n, v in each.columns.items() if n in features],
    }


def _choices(site: Site, case: UseCase) -> Sequence[str]:
    """Labels to choose among; none where a number is asked for."""
    if case.label.task == "binary":
        return ("true", "false")
    return sorted(served_classes(site.lake, site.registry, case))


def review(
    site: Site,
    serving: ServingSettings,
    name: str,
    by: str,
    caller: Caller,
    fields: Mapping[str, str],
) -> str:
    """Take a person's answer about a prediction that waits; the page that asks the next one.

    fields: `prediction_id`, and `label`, or `skip` as the label. Raises as
    `ml_platform.serving.records.answers.ReviewAnswers` does.
    """
    case = site.use_case(name)
    ReviewQueue(site.lake, [case]).require(name)
    prediction_id, label = fields.get("prediction_id", ""), fields.get("label", "").strip()
    if not label:
        raise RequestRefused("choose an answer, or that there is none", "label")
    said = Said(REVIEW, by, "pages", caller.details)
    with answering(
        site.settings, serving, site.lake, case,
        lambda: served_classes(site.lake, site.registry, case),
    ) as answers:  # fmt: skip
        if label == SKIP:
            answers.skip(name, prediction_id, said)
        else:
            answers.label(name, prediction_id, read_label(case, label), said)
    return f"{path_to(case, 'review')}?{urlencode({'by': by})}"

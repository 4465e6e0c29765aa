from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from ml_platform.errors import ModelNotFound
from ml_platform.registry import (
    Promotion,
    Registry,
    card_markdown,
    champion_at,
    history,
    read_card,
    waiting,
)
from ml_platform.rollback import plan_rollback, roll_back
from ml_platform.spec.modelling import Gate
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake
from ml_platform.training import decide, train
from tests.changed_facts import change_facts
from tests.trips_use_case import COMMIT, MODEL, at, days, land, settings, trips, write_folder

pytestmark = pytest.mark.slow

CONSTANT = """\
from sklearn.dummy import DummyClassifier


def build():
    return DummyClassifier(strategy="prior")
"""


GOOD = MODEL.format(kind="Classifier")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("gate")


@dataclass(frozen=True)
class World:
    lake: Lake
    registry: Registry
    root: Path

    def use_case(self, model: str, metric: str = "roc_auc", **gate: Any) -> UseCase:
        declared = write_folder(self.root, "binary", model)
        changed = declared.model.model_copy(update={"metric": metric})
        return declared.model_copy(update={"model": changed, "gate": Gate.model_validate(gate)})

    def challenge(self, day: int, use_case: UseCase) -> Promotion:
        version = train(self.lake, self.registry, use_case, at(day), COMMIT, tags={}).version
        decided = decide(self.lake, self.registry, use_case, version, COMMIT, decided_by="ada")
        return decided.promotion

    @property
    def alias(self) -> int:
        entry = self.registry._client.get_model_version_by_alias("trips", "champion")
        return int(entry.version)


@pytest.fixture(scope="module")
def world(root):
    lake = Lake(settings(root))
    world = World(lake, Registry(settings(root)), root)
    land(lake, world.use_case(GOOD), trips(1, 30), days(1, 30))
    yield world
    lake.close()


@pytest.fixture(scope="module")
def decisions(world):
    """What is decided about six versions, one after the other."""
    return [
        world.challenge(18, world.use_case(CONSTANT)),
        world.challenge(20, world.use_case(GOOD, min_improvement=0.6)),
        world.challenge(22, world.use_case(GOOD, metric="log_loss")),
        world.challenge(24, world.use_case(CONSTANT)),
        world.challenge(26, world.use_case(GOOD, min_improvement=-0.1)),
    ]


def test_the_first_model_is_promoted_from_its_cutoff_on(decisions):
    first = decisions[0]
    assert (first.decision, first.effective_from, first.decided_by) == ("promoted", at(18), "ada")
    assert first.reason == "first model, roc_auc 0.5000"
    assert first.figures["rows"] > 100
    assert "champion_roc_auc" not in first.figures


def test_a_gain_below_the_least_improvement_is_refused(decisions):
    second = decisions[1]
    assert second.decision == "refused"
    assert 0.3 < second.figures["improvement"] < 0.6
    assert second.reason.endswith("needed +0.6000")


def test_where_less_is_better_less_wins(decisions):
    third = decisions[2]
    ours, theirs = (third.figures[f"{role}_log_loss"] for role in ("challenger", "champion"))
    assert third.decision == "promoted"
    assert third.figures["improvement"] == theirs - ours > 0


def test_a_worse_challenger_is_refused_with_the_figures_of_both(decisions):
    fourth = decisions[3]
    assert fourth.decision == "refused"
    assert fourth.figures["challenger_roc_auc"] == 0.5
    assert fourth.figures["champion_roc_auc"] > 0.85
    assert fourth.figures["champion_version"] == 3
    assert fourth.reason.startswith("not better beyond noise; roc_auc 0.5000 against 0.")


def test_a_challenger_that_is_as_good_as_needed_is_promoted(decisions):
    fifth = decisions[4]
    assert fifth.decision == "promoted"
    assert fifth.figures["improvement"] >= -0.1


def test_mlflow_shows_what_was_decided_and_why(world, decisions):
    for decision in decisions:
        entry = world.registry._client.get_model_version("trips", str(decision.version))
        assert entry.tags["decision"] == decision.outcome
        assert entry.tags["reason"] == decision.reason
        card = read_card(world.lake, world.registry, world.use_case(GOOD), decision.version)
        assert entry.description == card_markdown(replace(card, served=()))
        assert decision.reason in entry.description
    refused = decisions[1]
    shown = world.registry.tags(world.use_case(GOOD), refused.version)
    assert shown["serves from"] == "never"
    assert shown["champion 1 roc_auc"] == "0.5000"


def test_deciding_again_returns_the_decision_that_was_made(world, decisions):
    use_case = world.use_case(GOOD)
    again = [
        decide(
            world.lake, world.registry, use_case, made.version, COMMIT, decided_by="eve"
        ).promotion
        for made in decisions
    ]
    assert again == decisions
    assert history(world.lake, use_case) == decisions


def test_a_version_that_does_not_exist_cannot_be_decided_about(world):
    with pytest.raises(ModelNotFound):
        decide(world.lake, world.registry, world.use_case(GOOD), 99, COMMIT, decided_by="ada")


def test_a_champion_serves_until_the_next_one_and_a_rollback_takes_it_back(world, decisions):
    use_case = world.use_case(GOOD)
    assert world.alias == 5
    place = world.lake, world.registry, use_case
    plan = plan_rollback(*place, decided_by="ada", reason="five is odd", to=3, since=at(25))
    assert plan.replaced == (5,)
    made = roll_back(*place, plan, COMMIT)
    found = history(world.lake, use_case)
    assert found == [*decisions, made]
    assert [champion_at(found, at(day)) for day in (18, 21, 22, 25, 30)] == [1, 1, 3, 3, 3]
    assert world.alias == 3
    with pytest.raises(ModelNotFound):
        plan_rollback(*place, decided_by="ada", reason="no such", to=99, since=at(22))


def test_with_approval_required_one_that_passes_waits_and_does_not_serve(world, decisions):
    use_case = world.use_case(GOOD, min_improvement=-0.2)
    asking = use_case.retrain.model_copy(update={"approval": "required"})
    before = world.alias
    found = world.challenge(27, use_case.model_copy(update={"retrain": asking}))
    assert (found.decision, found.figures["champion_version"]) == ("waiting", before)
    assert world.alias == before
    assert waiting(world.lake, use_case) == [found]


def test_the_first_version_of_all_can_wait(world):
    declared = write_folder(world.root, "binary", GOOD, name="first")
    asking = declared.retrain.model_copy(update={"approval": "required"})
    use_case = declared.model_copy(update={"retrain": asking})
    land(world.lake, use_case, trips(1, 12), days(1, 12))
    found = world.challenge(12, use_case)
    assert found.decision == "waiting"
    shown = world.registry.tags(use_case, found.version)
    assert (shown["decision"], shown["serves from"]) == ("waiting", "never")


def test_a_champion_of_another_environment_is_replaced(world, decisions):
    use_case = world.use_case(GOOD)
    serving = champion_at(history(world.lake, use_case), at(28))

    def older(facts: dict[str, Any]) -> None:
        kept = [line for line in facts["environment"] if not line.startswith("scikit-learn==")]
        facts["environment"] = [*kept, "scikit-learn==1.2.3"]

    change_facts(world.registry, use_case, serving, older)
    # One that has not loaded it yet.
    elsewhere = replace(world, registry=Registry(settings(world.root)))
    found = elsewhere.challenge(28, use_case)
    assert found.decision == "promoted"
    said = f"champion {serving} cannot be compared with: trips version {serving} was trained with "
    assert found.reason.startswith(f"{said}scikit-learn 1.2.3, here is ")
    assert found.figures["challenger_roc_auc"] > 0.5
    assert "champion_roc_auc" not in found.figures


def test_a_champion_that_needs_a_feature_that_is_gone_is_replaced(world, decisions):
    use_case = world.use_case(GOOD)
    view = use_case.features["pace"].model_copy(update={"features": {"speed": "DOUBLE"}})
    with world.lake.cursor() as cursor:
        cursor.execute("ALTER TABLE lake.trips.pace_features RENAME pace TO speed")
    narrowed = use_case.model_copy(update={"features": {"pace": view}})
    found = world.challenge(29, narrowed)
    assert found.decision == "promoted"
    assert "cannot score today's features" in found.reason
    assert "'pace__pace'" in found.reason
    assert "champion_roc_auc" not in found.figures

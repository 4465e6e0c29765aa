import numpy as np
import pytest

from ml_platform.errors import ModelNotFound
from ml_platform.registry import Registry, champion_at, history, rollback
from ml_platform.spec.use_case import Model
from ml_platform.storage import Lake
from ml_platform.training import decide, train
from tests.trips_use_case import COMMIT, MODEL, at, days, land, settings, trips, write_folder

CONSTANT = """\
from sklearn.dummy import DummyClassifier


def build():
    return DummyClassifier(strategy="prior")
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("gate")


@pytest.fixture(scope="module")
def world(root):
    """A lake and a registry with versions 1 (good), 2 (constant), 3 (good), by cutoff."""
    lake, registry = Lake(settings(root)), Registry(settings(root))
    good = write_folder(root, "binary")
    land(lake, good, trips(1, 30), days(1, 30))
    train(lake, registry, good, at(20), COMMIT, tags={})
    train(lake, registry, write_folder(root, "binary", CONSTANT), at(24), COMMIT, tags={})
    good = write_folder(root, "binary", MODEL.format(kind="Classifier"))
    train(lake, registry, good, at(28), COMMIT, tags={})
    yield lake, registry, good
    lake.close()


@pytest.fixture(scope="module")
def decisions(world):
    lake, registry, use_case = world
    return [decide(lake, registry, use_case, v, COMMIT, decided_by="ada") for v in (1, 2, 3)]


def alias(world):
    _, registry, use_case = world
    return int(registry._client.get_model_version_by_alias(use_case.name, "champion").version)


def test_the_first_model_is_promoted_from_its_cutoff_on(decisions):
    first = decisions[0]
    assert (first.decision, first.effective_from, first.decided_by) == ("promoted", at(20), "ada")
    assert first.reason.startswith("first model, roc_auc 0.")
    assert first.figures["rows"] > 100
    assert "champion_roc_auc" not in first.figures


def test_a_worse_challenger_is_refused_with_the_figures_of_both(decisions):
    second = decisions[1]
    assert second.decision == "refused"
    assert second.figures["challenger_roc_auc"] == 0.5
    assert second.figures["champion_roc_auc"] > 0.85
    assert second.figures["champion_version"] == 1
    assert second.figures["improvement"] < 0
    assert "roc_auc 0.5000 against 0." in second.reason


def test_a_challenger_that_is_as_good_as_needed_is_promoted(world, decisions):
    third = decisions[2]
    gain = third.figures["challenger_roc_auc"] - third.figures["champion_roc_auc"]
    assert third.figures["improvement"] == gain
    assert (third.decision == "promoted") == (gain >= 0)


def test_deciding_again_returns_the_decision_that_was_made(world, decisions):
    lake, registry, use_case = world
    again = [decide(lake, registry, use_case, v, COMMIT, decided_by="eve") for v in (1, 2, 3)]
    assert again == decisions
    assert len(history(lake, use_case)) == 3


def test_a_version_that_does_not_exist_cannot_be_decided_about(world):
    lake, registry, use_case = world
    with pytest.raises(ModelNotFound):
        decide(lake, registry, use_case, 99, COMMIT, decided_by="ada")


def test_a_champion_serves_until_the_next_one_and_a_rollback_takes_it_back(world, decisions):
    lake, registry, use_case = world
    promoted = [p for p in decisions if p.serves]
    assert alias(world) == promoted[-1].version
    made = rollback(lake, registry, use_case, 2, at(22), "ada", "trying", COMMIT)
    found = history(lake, use_case)
    assert found[-1] == made
    assert [champion_at(found, at(day)) for day in (21, 22, 30)] == [1, 2, 2]
    assert alias(world) == 2
    with pytest.raises(ModelNotFound):
        rollback(lake, registry, use_case, 99, at(22), "ada", "no such", COMMIT)


def variant(world, root, name, **changes):
    """Another use case on data of its own, with a constant champion and a good challenger."""
    lake, registry, _ = world
    use_case = write_folder(root, "binary", CONSTANT, name=name)
    land(lake, use_case, trips(1, 30), days(1, 30))
    first = train(lake, registry, use_case, at(20), COMMIT, tags={}).version
    decide(lake, registry, use_case, first, COMMIT, decided_by="ada")
    good = write_folder(root, "binary", MODEL.format(kind="Classifier"), name=name)
    model = Model.model_validate({**good.model.model_dump(), **changes})
    return good.model_copy(update={"model": model})


def test_a_gain_below_the_least_improvement_is_refused(world, root):
    lake, registry, _ = world
    use_case = variant(world, root, "strict", min_improvement=0.6)
    version = train(lake, registry, use_case, at(25), COMMIT, tags={}).version
    found = decide(lake, registry, use_case, version, COMMIT, decided_by="ada")
    assert found.decision == "refused"
    assert 0.3 < found.figures["improvement"] < 0.6


def test_where_less_is_better_less_wins(world, root):
    lake, registry, _ = world
    use_case = variant(world, root, "losses", metric="log_loss")
    version = train(lake, registry, use_case, at(25), COMMIT, tags={}).version
    found = decide(lake, registry, use_case, version, COMMIT, decided_by="ada")
    assert found.decision == "promoted"
    assert found.figures["challenger_log_loss"] < found.figures["champion_log_loss"]
    assert found.figures["improvement"] == pytest.approx(
        found.figures["champion_log_loss"] - found.figures["challenger_log_loss"]
    )
    assert np.isfinite(list(found.figures.values())).all()


def test_a_champion_that_needs_a_feature_that_is_gone_is_replaced(world, root):
    lake, registry, _ = world
    use_case = variant(world, root, "narrowed")
    view = use_case.features["pace"].model_copy(update={"features": {"speed": "DOUBLE"}})
    with lake.cursor() as cursor:
        cursor.execute("ALTER TABLE lake.narrowed.pace_features RENAME pace TO speed")
    narrowed = use_case.model_copy(update={"features": {"pace": view}})
    version = train(lake, registry, narrowed, at(25), COMMIT, tags={}).version
    found = decide(lake, registry, narrowed, version, COMMIT, decided_by="ada")
    assert found.decision == "promoted"
    assert "champion 1 cannot score today's features" in found.reason
    assert "'pace__pace'" in found.reason

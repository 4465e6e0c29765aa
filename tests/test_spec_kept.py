"""What was derived from a use case's files is kept, and never outlives what it was derived from."""

import json
import os
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ml_platform.errors import SpecErrors
from ml_platform.spec import kept, loading
from ml_platform.spec.kept import JsonCache, way_of_deriving
from ml_platform.spec.lineage import KeptLineage, Lineage
from ml_platform.spec.loading import load_use_case, load_use_cases
from ml_platform.spec.use_case import UseCase
from tests.trips_use_case import write_folder

PUBLISHED = """\
publish: {for_others: {table: others.trips, features: pace}}
serving: {log: {}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A use case with a publication and a log, loaded once."""
    (tmp_path / "data").mkdir()
    write_folder(tmp_path / "use_cases", "binary")
    found = tmp_path / "use_cases" / "trips"
    with (found / "use_case.yaml").open("a") as file:
        file.write(PUBLISHED)
    load(found)
    return found


def load(folder: Path, databases: tuple[str, ...] = ("others",)) -> UseCase:
    return load_use_case(folder, databases, derived(folder))


def derived(folder: Path) -> Path:
    return folder.parent.parent / "data" / "derived"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by one whenever queries are bound, which is what takes the time."""
    found: list[str] = []
    bind = loading.bind

    def counted(use_case: UseCase, *arguments: Any) -> UseCase:
        found.append(use_case.name)
        return bind(use_case, *arguments)

    monkeypatch.setattr(loading, "bind", counted)
    return found


def test_a_use_case_whose_files_are_as_they_were_is_not_bound_again(
    folder: Path, opened: list[str]
) -> None:
    again = load(folder)
    # The setting `databases` is a mapping, and its names are what counts.
    assert load_use_case(folder, {"others": "parquet:/others"}, derived(folder)) == again
    assert opened == []
    fresh = load_use_case(folder, ["others"])
    assert again == fresh
    assert again.code_version == fresh.code_version
    assert again.publish["for_others"].items == ('"trip"', '"event_time"', '"pace"')
    assert list(again.sources) == ["trips", "requests", "refusals", "feedback"]


def test_every_use_case_that_ships_is_the_same_from_what_was_kept(
    tmp_path: Path, opened: list[str]
) -> None:
    root = Path("use_cases")
    first = load_use_cases(root, kept=tmp_path)
    assert opened
    opened.clear()
    assert load_use_cases(root, kept=tmp_path) == first == load_use_cases(root)
    assert len(opened) == len(first.use_cases)


CHANGES: dict[str, tuple[str, str, str, Callable[[UseCase], object], object]] = {
    "the declaration": (
        "use_case.yaml", "lookback: 1d", "lookback: 2d",
        lambda case: str(case.features["pace"].lookback), "2d",
    ),
    "a feature view": (
        "features/pace.sql", "AS pace", "AS speed",
        lambda case: case.features["pace"].features, {"speed": "DOUBLE"},
    ),
    "the labels": (
        "labels.sql", "delay > 15", "delay > 16",
        lambda case: "delay > 16" in case.label.query, True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_a_changed_file_is_never_answered_from_before(
    folder: Path, change: tuple[str, str, str, Callable[[UseCase], object], object]
) -> None:
    name, before, after, shown, expected = change
    file, times = folder / name, (folder / name).stat()
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))
    # Neither length nor times of the file give the change away.
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert shown(load(folder)) == expected
    assert shown(load(folder)) == expected


def test_a_mistake_that_is_made_later_is_found_and_stays_one(folder: Path) -> None:
    model = folder / "model.py"
    model.write_text(model.read_text().replace("def build(", "def made("))
    for _ in range(2):
        with pytest.raises(SpecErrors, match="no function 'build'"):
            load(folder)


def test_a_file_that_is_gone_is_missed(folder: Path) -> None:
    (folder / "labels.sql").unlink()
    with pytest.raises(SpecErrors, match=r"there is no file 'labels\.sql'"):
        load(folder)


@pytest.mark.parametrize("none", [(), {}], ids=["a list", "a mapping"])
def test_no_databases_are_the_same_however_they_are_given(
    tmp_path: Path, opened: list[str], none: Collection[str]
) -> None:
    case = write_folder(tmp_path / "use_cases", "binary")
    load_use_case(case.folder, [], tmp_path / "derived")
    opened.clear()
    load_use_case(case.folder, none, tmp_path / "derived")
    assert opened == []


def test_databases_that_are_other_ones_are_checked(folder: Path) -> None:
    with pytest.raises(SpecErrors, match="database 'others'"):
        load(folder, ("erp",))


def test_another_version_of_the_platform_derives_again(
    folder: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "way_of_deriving", lambda: "another")
    load(folder)
    assert opened == ["trips"]


def test_the_way_of_deriving_is_the_code_and_the_versions_of_what_it_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def way() -> str:
        way_of_deriving.cache_clear()
        return way_of_deriving()

    package = tmp_path / "spec"
    package.mkdir()
    (package / "inputs.py").write_text("A = 1\n")
    monkeypatch.setattr(kept, "__file__", str(package / "kept.py"))
    found = [way(), way()]
    (package / "inputs.py").write_text("A = 2\n")
    found.append(way())
    monkeypatch.setattr("duckdb.__version__", "0.0.0")
    found.append(way())
    monkeypatch.setattr(kept, "version", lambda name: "0")
    found.append(way())
    way_of_deriving.cache_clear()
    assert found[0] == found[1]
    assert len(set(found)) == 4


def broken_by(text: str) -> list[str | bytes]:
    head, _, body = text.partition("\n")
    return [
        "", text[:-1], text[:50], body, f"{head}\n{{}}", f"{'0' * len(head)}\n{body}",
        text.replace("DOUBLE", "BIGINT"), b"\x80\x04\x95", b"\xff\xfe",
    ]  # fmt: skip


def test_what_cannot_be_read_is_derived_and_kept_again(folder: Path, opened: list[str]) -> None:
    file, fresh = derived(folder) / "trips.json", load(folder)
    sound = file.read_text()
    assert json.loads(sound.partition("\n")[2])["label"]["reads"] == ["trips"]
    for broken in broken_by(sound):
        file.write_bytes(broken if isinstance(broken, bytes) else broken.encode())
        opened.clear()
        assert load(folder) == fresh
        assert opened == ["trips"]
        assert file.read_text() == sound


@pytest.mark.parametrize("there", ["nothing", "a file"])
def test_what_cannot_be_written_is_not_kept(tmp_path: Path, there: str) -> None:
    case = write_folder(tmp_path / "use_cases", "binary")
    place = tmp_path / "data"
    if there == "a file":
        place.write_text("")
    assert load_use_case(case.folder, kept=place / "derived") == case
    assert place.exists() == (there == "a file")


def test_files_that_change_while_they_are_read_are_not_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, bind = folder / "labels.sql", loading.bind
    text = file.read_text()

    def changing(*arguments: Any) -> UseCase:
        # What is bound is neither what was there before nor what is there afterwards.
        file.write_text(text.replace("delay > 15", "delay > 99"))
        bound = bind(*arguments)
        file.write_text(text.replace("delay > 15", "delay > 16"))
        return bound

    file.write_text(text.replace("delay > 15", "delay > 16"))
    with monkeypatch.context() as patch:
        patch.setattr(loading, "bind", changing)
        assert "delay > 99" in load(folder).label.query
    assert "delay > 16" in load(folder).label.query


def test_those_who_read_see_a_whole_value_or_none(tmp_path: Path) -> None:
    values = {f"source {n}": ["x" * 1000 * n] for n in range(1, 9)}

    def work(source: str) -> list[Any]:
        place, found = JsonCache(tmp_path), []
        for _ in range(25):
            place.write("it", source, values[source])
            found.append(place.read("it", source))
        return found

    with ThreadPoolExecutor(len(values)) as pool:
        for source, found in zip(values, pool.map(work, values), strict=True):
            assert all(each in (None, values[source]) for each in found)
    assert [file.name for file in tmp_path.iterdir()] == ["it.json"]


def test_lineage_is_kept_until_a_query_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = write_folder(tmp_path / "use_cases", "binary")
    query = case.features["pace"].query
    expected = Lineage({"trips": case.sources["trips"].columns}).of(query)
    assert expected["pace"] == (("trips", "distance"),)
    parsed: list[str] = []
    of = Lineage.of

    def counted(self: Lineage, query: str) -> dict[str, tuple[tuple[str, str], ...]]:
        parsed.append(query)
        return of(self, query)

    monkeypatch.setattr(Lineage, "of", counted)
    for _ in range(2):
        assert KeptLineage(case, tmp_path / "derived").of(query) == expected
    assert parsed == [query]
    file = case.folder / "features" / "pace.sql"
    file.write_text(file.read_text().replace("distance", "delay"))
    changed = load_use_case(case.folder)
    lineage = KeptLineage(changed, tmp_path / "derived").of(changed.features["pace"].query)
    assert lineage["pace"] == (("trips", "delay"),)

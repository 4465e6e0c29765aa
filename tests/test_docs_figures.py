"""Figures of the demo that docs quote: those that the demo's lake has, and none that vanishes."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from demo import figures
from demo.quoted import OF_REPLAY, OF_THE_LAKE
from demo.quotes import Quote, differences, printed
from ml_platform.errors import UpgradeNeeded
from ml_platform.registry import Registry
from ml_platform.settings import Settings
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake

DATA = Path(os.environ.get("ML_PLATFORM_DATA", figures.ROOT / "data"))
SENTENCE = Quote("page.md", "It has $rows rows since $since.")
FIGURES = {"rows": "1,000", "since": "2013-01-01"}


def said(folder: Path, text: str, quote: Quote = SENTENCE) -> list[str]:
    """What is said of a page with some text."""
    (folder / "page.md").write_text(text)
    return [str(each) for each in differences(folder, [quote], FIGURES)]


def test_a_figure_that_is_right_is_not_mentioned(tmp_path: Path) -> None:
    assert said(tmp_path, "# Page\nIt has 1,000 rows since 2013-01-01.\n") == []


def test_a_wrong_figure_is_named_with_its_line_and_with_the_right_one(tmp_path: Path) -> None:
    assert said(tmp_path, "# Page\n\nIt has 1,001 rows\nsince 2013-01-02. More.") == [
        "page.md:3: quotes 1,001, the demo has 1,000",
        "page.md:4: quotes 2013-01-02, the demo has 2013-01-01",
    ]


@pytest.mark.parametrize("text", ["It has many rows.", "It had 1,000 rows since 2013-01-01.", ""])
def test_a_sentence_that_is_gone_is_named(tmp_path: Path, text: str) -> None:
    assert said(tmp_path, text) == ["page.md: says nowhere 'It has 1,000 rows since 2013-01-01.'"]


def test_each_place_that_quotes_a_figure_is_looked_at(tmp_path: Path) -> None:
    text = "It has 1,000 rows since 2013-01-01.\nIt has 999 rows since 2013-01-01.\n"
    assert said(tmp_path, text) == ["page.md:2: quotes 999, the demo has 1,000"]


def test_a_figure_at_the_end_is_taken_whole(tmp_path: Path) -> None:
    ends = Quote("page.md", "of $rows")
    assert said(tmp_path, "of 1,000, say", ends) == []
    assert said(tmp_path, "of 1,000.5\n", ends) == ["page.md:1: quotes 1,000.5, the demo has 1,000"]


def test_a_figure_of_several_words_is_compared_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("because: too\nfew rows; wait")
    quote = Quote("page.md", "because: $reason; wait")
    assert list(differences(tmp_path, [quote], {"reason": "too few rows"})) == []
    (found,) = differences(tmp_path, [quote], {"reason": "not better beyond"})
    assert (found.quoted, found.found) == ("too few rows", "not better beyond")


def test_what_is_printed_is_compared_line_by_line(tmp_path: Path) -> None:
    shown = "  drift   41 of 57 columns, 72%\n  policy every:30d 0.78\n"
    quotes, numbers = printed("page.md", shown, "status")
    (tmp_path / "page.md").write_text(shown)
    assert list(differences(tmp_path, quotes, numbers)) == []
    (tmp_path / "page.md").write_text(shown.replace("41", "40").replace("every:30d", "every:14d"))
    assert [str(each) for each in differences(tmp_path, quotes, numbers)] == [
        "page.md:1: quotes 40, the demo has 41",
        "page.md: says nowhere 'policy every:30d 0.78'",
    ]


def test_docs_quote_what_the_demo_had_when_somebody_looked_last() -> None:
    quotes, noted = figures.kept()
    assert {*OF_THE_LAKE, *OF_REPLAY} <= {*quotes}, "run make figures after make demo"
    assert [str(each) for each in differences(figures.ROOT, quotes, noted)] == []


@pytest.fixture(scope="module")
def demo() -> Iterator[tuple[Lake, Registry, UseCase]]:
    """The lake of a demo that is on this machine."""
    if not (DATA / "flight_delays.png").exists():
        pytest.skip(f"no demo in {DATA}: `make demo` makes one, ML_PLATFORM_DATA names another")
    settings = Settings(data=DATA, use_cases=figures.ROOT / "use_cases")
    use_case = load_use_case(settings.use_cases / figures.USE_CASE)
    with closing(Lake(settings)) as lake:
        try:
            figures.require_demo(lake, use_case)
        except (figures.DemoNotMade, UpgradeNeeded) as error:
            pytest.skip(str(error))
        yield lake, Registry(settings), use_case


@pytest.mark.slow
def test_docs_quote_what_the_lake_of_the_demo_has(demo: tuple[Lake, Registry, UseCase]) -> None:
    found = differences(figures.ROOT, *figures.of_the_lake(*demo))
    assert [str(each) for each in found] == []


@pytest.mark.slow
def test_docs_quote_what_a_replay_of_the_demo_came_to(
    demo: tuple[Lake, Registry, UseCase],
) -> None:
    lake, _, _ = demo
    document = figures.kept_replay(lake.settings)
    if document is None:
        pytest.skip("no replay of the year is kept: `make figures` runs it")
    found = differences(figures.ROOT, *figures.of_replay(document))
    assert [str(each) for each in found] == []


@pytest.mark.slow
def test_a_lake_without_the_year_is_refused(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path)
    use_case = load_use_case(figures.ROOT / "use_cases" / figures.USE_CASE)
    with closing(Lake(settings)) as lake, pytest.raises(figures.DemoNotMade, match="make demo"):
        figures.require_demo(lake, use_case)


@pytest.mark.slow
def test_a_lake_that_sensors_have_worked_on_is_refused(tmp_path: Path) -> None:
    use_case = load_use_case(figures.ROOT / "use_cases" / figures.USE_CASE)
    with closing(Lake(Settings(data=tmp_path))) as lake:
        with lake.cursor() as cursor:
            cursor.execute(f"CREATE SCHEMA lake.{use_case.name}")
            cursor.execute(f"CREATE TABLE lake.{use_case.name}.alerts (kind VARCHAR)")
        with pytest.raises(figures.DemoNotMade, match="sensors have run"):
            figures.require_demo(lake, use_case)

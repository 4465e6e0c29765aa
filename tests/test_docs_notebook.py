"""The notebook of the docs and the page about notebooks, run from top to bottom on a small lake."""

import ast
import json
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from demo.source_system import land_flights
from ml_platform.cli.app import app

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOK = json.loads((DOCS / "flight_delays.ipynb").read_text(encoding="utf-8"))
FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DAYS = "2013-03-04...2013-03-16"
SERVED = "2013-03-13...2013-03-16"
PARAMETERS = f'CUTOFF = "2013-03-13"\nRANGE = "{SERVED}"\n'
"""For a lake of these days: the notebook's own are of the demo's year."""


def code_cells() -> list[dict[str, Any]]:
    return [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_is_one_and_keeps_no_outputs() -> None:
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in NOTEBOOK["cells"]]
    assert len({*ids}) == len(ids)
    assert {(*cell["outputs"], cell["execution_count"]) for cell in code_cells()} == {(None,)}
    assert [cell["id"] for cell in code_cells() if cell["metadata"]] == ["parameters"]


@pytest.fixture(scope="module")
def flights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Thirteen days of March in a folder like this repository; a champion serves the last four."""
    root = tmp_path_factory.mktemp("notebook")
    (root / "use_cases").symlink_to(DOCS.parent / "use_cases")
    (root / "docs").mkdir()
    days = [date(2013, 3, day) for day in range(4, 17)]
    land_flights(root / "data" / "landing" / "flight_delays", days)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for words in (
            ("ingest", "--range", DAYS),
            ("features", "--range", DAYS),
            ("labels", "--range", DAYS),
            ("train", "--cutoff", "2013-03-13"),
            ("promote",),
            ("score", "--range", SERVED),
            ("drift", "--range", SERVED),
            ("performance", "--range", SERVED),
        ):
            name, *options = words
            done = CliRunner().invoke(app, [name, "flight_delays", *options])
            assert done.exit_code == 0, (words, done.output, done.exception)
        # Where Jupyter runs a notebook: in its own folder.
        patch.chdir(root / "docs")
        yield root


def run(source: str, names: dict[str, Any]) -> Any:
    """The value of the last line, if it is an expression, as a notebook would show it."""
    *body, last = ast.parse(source).body
    if not isinstance(last, ast.Expr):
        body, last = [*body, last], None  # type: ignore[assignment]
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    return last and eval(compile(ast.Expression(last.value), "cell", "eval"), names)


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(flights: Path) -> None:
    names: dict[str, Any] = {}
    shown = {}
    for cell in code_cells():
        text = PARAMETERS if cell["id"] == "parameters" else "".join(cell["source"])
        shown[cell["id"]] = run(text, names)
    pictures = [value for name, value in shown.items() if name.startswith("plot-")]
    assert len(pictures) == 5
    assert all(picture._repr_png_().startswith(b"\x89PNG") for picture in pictures)
    for name in ("open", "training-set", "spine", "predictions", "estimator", "worst"):
        assert "<table" in shown[name]._repr_html_(), name
    assert "paired bootstrap" in shown["estimator"]._repr_html_()


@pytest.mark.slow
def test_the_blocks_of_the_page_run_one_after_the_other(flights: Path) -> None:
    names: dict[str, Any] = {}
    blocks = FENCE.findall((DOCS / "notebook.md").read_text(encoding="utf-8"))
    assert len(blocks) >= 6
    for block in blocks:
        run(block, names)
    assert names["scores"]["probability"].between(0, 1).all()
    assert names["result"].resampled == "rows"

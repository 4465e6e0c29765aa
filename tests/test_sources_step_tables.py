"""Tables that one step of an ingestion hands to another are imported, not spelled again."""

import re
from pathlib import Path

from ml_platform.sources import step_tables

FOLDER = Path(step_tables.__file__).parent.parent


def test_no_other_file_spells_the_name_of_a_table_that_steps_share() -> None:
    shared = {each for each in vars(step_tables).values() if str(each).startswith("temp.__")}
    assert len(shared) == 9
    spelled = re.compile(rf"\b({'|'.join(map(re.escape, sorted(shared)))})\b")
    found = [
        str(file)
        for file in FOLDER.rglob("*.py")
        if file.name != "step_tables.py" and spelled.search(file.read_text())
    ]
    assert found == []


def test_a_table_that_two_files_name_is_one_that_steps_share() -> None:
    files: dict[str, set[str]] = {}
    for file in (FOLDER / "sources").glob("*.py"):
        for name in re.findall(r"\btemp\.__\w+", file.read_text()):
            files.setdefault(name, set()).add(file.name)
    assert {name for name, where in files.items() if len(where) > 1} == set()

"""Words that the field's own replaced do not come back; docs/glossary.md has those in use."""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = (
    "assets", "benchmarks", "demo", "deploy", "docs", "examples", "ml_platform", "resources",
    "sensors", "tests", "use_cases",
)  # fmt: skip
KINDS = {".py", ".md", ".sql", ".yaml", ".conf", ".java", ".ts", ".html", ".jinja", ".toml"}
RETIRED = {
    r"stretch(es)?\b": "range",
    r"reigns?\b": "champion period",
    r"deeds?\b": "action",
    r"hulls?\b": "covering range",
    r"(told|tells?|telling)\b(?!\(\))": "notified, reported, distinguished, shown",
    r"(made|makes?|making)[ _]again\b": "recomputed",
    r"(is|are|was|were|be|being|stays?|goes|turned|turns?)[ _]away\b": "unavailable, rejected",
    r"slips? of (the|a) pen\b": "typo",
    r"(window|row|file|table)_prints?\b": "fingerprint",
    r"good end\b": "succeeded, failed",
    r"may nothing\b": "no permissions",
    r"(to|not|cannot|could|can) be had\b": "available",
    r"(been seen|sees) to\b": "checked",
    r"(go|goes|going|gone|went)[ _]on\b": "continue",
    r"dear(er|est)\b": "more expensive",
    r"' is no (?!longer|more)": "is not a valid",
    r"(?<!there )is no (date|duration|file|number|time)\b": "is not a valid",
    r"nobody who is known\b": "too many failed logins",
    r"(hung|hangs?|hanging)[ _]up\b": "disconnected",
    r"in one go\b|go \d+ of \d+\b": "batch",
}
"""Pattern of a retired word, in lower case → what to write instead. No letter is before it."""
KEPT = {
    # The name of a column that release 0.1.0 stored.
    "ml_platform/storage/migrations/data_folder_2.py": "told_at",
    "ml_platform/storage/migrations/lake_2.py": "told_at",
    "tests/test_upgrade.py": "told_at",
}
FILES = (
    "asked", "declaring", "evidence", "heads", "here", "pace", "present", "regular", "reigns",
    "states", "stretches", "telling", "together", "unfinished", "waiting",
)  # fmt: skip
CODE = ("assets", "ml_platform", "resources", "sensors")
"""Folders whose classes people look for by their names, in tracebacks too."""
CLASSES = ("Asked", "Deed", "Order", "Plan", "Reign", "Together", "Trace", "Verdict")


def sources() -> Iterator[tuple[str, str]]:
    """Path from the root and text of every file that people read, but for this one."""
    pages = [file for file in ROOT.iterdir() if file.suffix in KINDS]
    for file in (*pages, *(f for folder in FOLDERS for f in (ROOT / folder).rglob("*"))):
        if file.suffix in KINDS and file.is_file() and file != Path(__file__):
            yield file.relative_to(ROOT).as_posix(), file.read_text(encoding="utf-8")


def test_no_retired_word_comes_back() -> None:
    retired = re.compile(rf"(?<![a-z])(?:{'|'.join(RETIRED)})".replace(r"\b", "(?![a-z])"))
    found = [
        f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]!r}"
        for name, text in sources()
        for match in retired.finditer(text.lower().replace(KEPT.get(name, " "), " "))
    ]
    assert not found, "\n".join(["see RETIRED for what to write instead:", *found])


def test_no_file_has_a_name_that_says_nothing() -> None:
    assert [name for name, _ in sources() if Path(name).stem in FILES] == []


def test_no_class_has_a_name_that_two_could_have() -> None:
    declared = re.compile(rf"^class ({'|'.join(CLASSES)})\b", re.MULTILINE)
    assert [name for name, text in sources() if declared.search(text)] == []


def test_no_class_has_the_name_of_one_in_another_module() -> None:
    modules: dict[str, list[str]] = defaultdict(list)
    for name, text in sources():
        if name.endswith(".py") and name.startswith(tuple(f"{folder}/" for folder in CODE)):
            for declared in set(re.findall(r"^class (\w+)", text, re.MULTILINE)):
                modules[declared].append(name.removesuffix(".py").replace("/", "."))
    shared = {name: places for name, places in modules.items() if len(places) > 1}
    assert not shared, "\n".join(
        f"class {name} is in {' and in '.join(sorted(places))}: qualify all but one"
        for name, places in sorted(shared.items())
    )

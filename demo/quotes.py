"""Sentences of docs that quote figures of the demo, and what they should say."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PLACE = re.compile(r"\$([a-z_0-9]+)")
NUMBER = re.compile(r"(?<![\w.:])[-+]?\d+(?:[.,:-]\d+)*(?!\w)")
"""A number, a date or a time that stands by itself, of something that is printed."""

ENDED = r"(?=[.,;:)\]]*(?:\s|\Z))"


@dataclass(frozen=True)
class Quote:
    """A sentence of a page with the names of figures, `$rows`, in place of these.

    >>> quote = Quote("docs/a.md", "It has $rows rows.")
    >>> quote.filled({"rows": "1,000"})
    'It has 1,000 rows.'
    """

    page: str
    """Path from the root of the repository."""
    sentence: str

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """Words and names of figures by turns; words are first and last."""
        return tuple(PLACE.split(self.sentence))

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of its figures, in order."""
        return self.parts[1::2]

    def filled(self, figures: Mapping[str, str]) -> str:
        """The sentence with figures by name."""
        return PLACE.sub(lambda name: figures[name[1]], self.sentence)

    def pattern(self, figures: Mapping[str, str]) -> re.Pattern[str]:
        """What finds it with any figures of as many words, whatever lines it is broken into."""
        found = ""
        for position, part in enumerate(self.parts):
            if position % 2:
                more = len(figures[part].split()) - 1
                found += rf"(\S+?(?:\s+\S+?){{{more}}})"
            else:
                found += re.sub(r"(?:\\?\s)+", r"\\s+", re.escape(part))
        # So that a figure which is last is taken to its end.
        return re.compile(found + ENDED if not self.parts[-1] else found)


@dataclass(frozen=True)
class Difference:
    """Where a page quotes another figure than the demo has, or a sentence no more."""

    page: str
    line: int | None
    """None where the sentence is not there."""
    quoted: str | None
    found: str
    """The figure of the demo; the whole sentence where it is not there."""

    def __str__(self) -> str:
        if self.line is None:
            return f"{self.page}: says nowhere '{self.found}'"
        return f"{self.page}:{self.line}: quotes {self.quoted}, the demo has {self.found}"


def printed(page: str, text: str, name: str) -> tuple[list[Quote], dict[str, str]]:
    """What a page shows as printed, line by line: a quote each, and all of their figures.

    name: what names of the figures begin with.

    >>> (line,), figures = printed("docs/a.md", "drift 41 of 57 columns", "status")
    >>> line.sentence, figures
    ('drift $status_1 of $status_2 columns', {'status_1': '41', 'status_2': '57'})
    """
    figures: dict[str, str] = {}

    def named(number: re.Match[str]) -> str:
        key = f"{name}_{len(figures) + 1}"
        figures[key] = number[0]
        return f"${key}"

    lines = [NUMBER.sub(named, line.strip()) for line in text.splitlines() if line.strip()]
    return [Quote(page, line) for line in lines], figures


def differences(
    root: Path, quotes: Iterable[Quote], figures: Mapping[str, str]
) -> Iterator[Difference]:
    """Where pages below a root do not say what they should, in the order of the quotes."""
    for quote in quotes:
        text = (root / quote.page).read_text(encoding="utf-8")
        said = list(quote.pattern(figures).finditer(text))
        if not said:
            yield Difference(quote.page, None, None, quote.filled(figures))
        for match in said:
            for group, name in enumerate(quote.figures, start=1):
                quoted = " ".join(match[group].split())
                if quoted != figures[name]:
                    line = text.count("\n", 0, match.start(group)) + 1
                    yield Difference(quote.page, line, quoted, figures[name])

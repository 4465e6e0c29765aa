"""Folders and URLs in which a caller may have the files of a source looked for.

A caller names a folder, never a file or a pattern: of what is in it, only files are read that
match what the source declares. Names are compared part by part, so that `landing/trips2` is not
below `landing/trips`.
"""

import re

MAGIC = frozenset("*?[")
SCHEME = re.compile(r"[a-z][a-z0-9]*://")
PART = re.compile(r"[\w =:@+,~.-]{1,255}", re.ASCII)
LONGEST = 1000


def location(text: str) -> str:
    """A folder or a URL in its one spelling, without a slash at its end; ValueError.

    >>> location("az://lake/landing//march/")
    'az://lake/landing/march'
    >>> location("../../etc")
    Traceback (most recent call last):
    ValueError: '..' leads out of the folder
    """
    scheme = SCHEME.match(text)
    head = scheme[0] if scheme else "/" if text.startswith("/") else ""
    parts = [part for part in text.removeprefix(head).split("/") if part]
    if not parts or len(text) > LONGEST:
        raise ValueError(f"should name a folder, in at most {LONGEST} characters")
    for part in parts:
        if part in {".", ".."}:
            raise ValueError(f"'{part}' leads out of the folder")
        if not PART.fullmatch(part) or (scheme is None and "://" in text):
            raise ValueError(
                f"'{part[:60]}' has characters other than letters, digits and _ = : @ + , ~ . -"
            )
    return head + "/".join(parts)


def is_below(folder: str, root: str) -> bool:
    """Whether a folder is another one or below it; both in their one spelling.

    >>> is_below("az://lake/trips/march", "az://lake/trips"), is_below("/data2", "/data")
    (True, False)
    """
    return f"{folder}/".startswith(f"{root}/")


def files_at(files: str, folder: str) -> str:
    """What a source's glob becomes in another folder: the part of it that is a pattern stays.

    >>> files_at("trips/day=*/*.parquet", "az://lake/march")
    'az://lake/march/day=*/*.parquet'
    >>> files_at("trips/all.csv", "archive")
    'archive/all.csv'
    """
    parts = files.split("/")
    plain = next((i for i, part in enumerate(parts) if MAGIC & set(part)), len(parts) - 1)
    return "/".join([folder, *parts[plain:]])

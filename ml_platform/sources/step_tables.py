"""The temporary tables that one step of an ingestion fills and others read.

They are of one cursor, and each ingestion makes them again. Tables that one step alone uses are
named where it is.
"""

FILES = "temp.__files"
"""What rows come from: `number`, the oldest first, `name`, `path` (None where it is gone),
`modified_at`; of landing files also `fingerprint`, `size`, `written_at`. `intake.number_files` and
`SourceTable.judge` fill it."""
RAW = "temp.__raw"
"""Rows as a reader finds them, by `__path` or with `__mark`, before the contract judges them."""
SALVAGED = "temp.__salvaged"
"""Records of one broken file, with `__problem` where one cannot be read."""
JUDGED = "temp.__judged"
"""Rows of some files with their types: `__file`, a number of `FILES`, `__row`, the columns of the
source, `__event`, `__reason` (why one goes to quarantine), `__record` (what it was, as JSON)."""
ROWS = "temp.__rows"
"""Those of the range, with their `window_start`: what is written to the source and quarantine."""
WINNERS = f"(FROM {ROWS} WHERE __reason IS NULL)"
"""Those that are written to the source."""
ELSEWHERE = "temp.__elsewhere"
"""Keys that rewritten files have in windows outside of the range."""
NEWS = "temp.__news"
"""Which files, by `number`, are new in which windows."""
NEWS_WINDOWS = "temp.__news_windows"
"""When what is new in a window had all arrived."""
TOUCHED = "temp.__touched"
"""Keys of rows whose versions may become others."""

"""Numbers as CSV files have them: decimal commas, thousands separators."""

import re

from ml_platform.spec.queries import literal

THOUSANDS = {".": (",", "'", " ", "\u00a0"), ",": (".", "'", " ", "\u00a0")}
"""What may stand between thousands, by what stands before the fraction."""


def grouped_pattern(decimal: str, thousands: str) -> str:
    """Regular expression of a number in whose whole part each group of three is set apart."""
    return rf"[+-]?\d{{1,3}}({re.escape(thousands)}\d{{3}})+({re.escape(decimal)}\d*)?"


def plain_number_sql(raw: str, decimal: str, thousands: str) -> str:
    """SQL of a landed text as DuckDB reads numbers; what is not a number stays none.

    raw: SQL of the text.
    """
    value = raw
    if thousands:
        # Only where every group has three digits: 1,5 is no 15.
        grouped = f"regexp_full_match({raw}, {literal(grouped_pattern(decimal, thousands))})"
        value = f"CASE WHEN {grouped} THEN replace({raw}, {literal(thousands)}, '') ELSE {raw} END"
    # Points become commas, so that 1.234 is not read as little more than one.
    return f"translate({value}, ',.', '.,')" if decimal == "," else value

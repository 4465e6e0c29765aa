"""Expressions as text, and the refusal of those that do not carry over."""

from sqlglot import exp


class Refused(Exception):
    """An expression that is not known to mean the same in Spark."""


def parsed(text: str) -> exp.Expr:
    """An expression of Spark."""
    return exp.maybe_parse(text, dialect="spark")


def spark(node: exp.Expr | None) -> str:
    """The text of an expression whose parts are Spark's already."""
    return "" if node is None else node.sql("spark")


def shown(node: exp.Expr) -> str:
    """An expression as DuckDB writes it, for a message."""
    return node.sql("duckdb")[:80]


def quotable(text: str) -> str:
    """Text that can stand in a string of Spark, for a message."""
    return text.replace("\\", "").replace("'", "")[:80]

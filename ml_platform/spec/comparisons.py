"""SQL conditions that only compare columns with numbers, as what they compare."""

from collections.abc import Iterable
from typing import Literal, NamedTuple, TypeAlias

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

Operator: TypeAlias = Literal["<", "<=", ">", ">=", "<>"]
MOST_DIGITS = 15
"""Up to here a number of the SQL is the same one as a float."""
OPERATORS: dict[type[exp.Expr], tuple[Operator, ...]] = {
    exp.LT: ("<",),
    exp.LTE: ("<=",),
    exp.GT: (">",),
    exp.GTE: (">=",),
    exp.EQ: ("<=", ">="),
    exp.NEQ: ("<>",),
}
TURNED: dict[Operator, Operator] = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "<>": "<>"}


class Comparison(NamedTuple):
    """One comparison of a column with a number."""

    column: str
    operator: Operator
    number: float


def read_comparisons(sql: str, columns: Iterable[str]) -> list[Comparison] | None:
    """The comparisons that together say what a condition says; None where it says anything else.

    columns: those that may be compared.

    >>> read_comparisons("a > 0 AND b BETWEEN -1 AND 2.5", ["a", "b"])  # doctest: +ELLIPSIS
    [Comparison(column='a', operator='>', number=0.0), ..., operator='<=', number=2.5)]
    >>> read_comparisons("a > b", ["a", "b"])
    """
    try:
        tree = sqlglot.parse_one(sql, dialect="duckdb")
    except SqlglotError:
        return None
    known = {column.lower(): column for column in columns}
    found: list[Comparison] = []
    for term in tree.unnest().flatten() if isinstance(tree.unnest(), exp.And) else [tree]:
        read = _read(term.unnest(), known)
        if not read:
            return None
        found += read
    return found


def _read(term: exp.Expr, known: dict[str, str]) -> list[Comparison]:
    """The comparisons of one term; none where it is something else."""
    if isinstance(term, exp.Between) and not term.args.get("symmetric"):
        sides = (exp.GTE(this=term.this, expression=term.args["low"]),
                 exp.LTE(this=term.this, expression=term.args["high"]))  # fmt: skip
        both = [_read(side, known) for side in sides]
        return [*both[0], *both[1]] if all(both) else []
    operators = OPERATORS.get(type(term))
    if operators is None:
        return []
    left, right = term.this.unnest(), term.expression.unnest()
    if isinstance(right, exp.Column):
        left, right, operators = right, left, tuple(TURNED[each] for each in operators)
    number = _number(right)
    if not isinstance(left, exp.Column) or left.table or number is None:
        return []
    column = known.get(left.name.lower())
    return [Comparison(column, each, number) for each in operators] if column else []


def _number(term: exp.Expr) -> float | None:
    negative = isinstance(term, exp.Neg)
    text = term.this if negative else term
    if not isinstance(text, exp.Literal) or text.is_string:
        return None
    if sum(character.isdigit() for character in text.this) > MOST_DIGITS:
        return None
    return -float(text.this) if negative else float(text.this)

"""DuckDB's ASOF joins in Spark, which has none.

Rows of both sides are put in one order of time; each row of the left side takes the last row of
the right side before it. That sorts each side once, where a join on an inequality would compare
every pair of rows of a key. A row of the left side without a time finds nothing.
"""

from sqlglot import exp

from ml_platform.spec.spark_sql.expressions import Refused, parsed, spark

SIDE, AT = "__side", "__at"


def without_asof(select: exp.Select) -> exp.Select:
    """The same query without ASOF joins; its expressions are Spark's already.

    Raises Refused where a column does not say which table it is of.
    """
    joins: list[exp.Join] = select.args.get("joins") or []
    if not any(_is_asof(join) for join in joins):
        return select
    _require_named(select)
    relation = [select.args["from_"].sql("spark").removeprefix("FROM ")]
    names, is_derived = [select.args["from_"].this.alias_or_name], False
    for join in joins:
        if not _is_asof(join):
            if is_derived:
                raise Refused("in Spark, ASOF joins come after the other joins of a query")
            relation.append(join.sql("spark"))
            names.append(join.this.alias_or_name)
            continue
        relation = [_joined(relation, names, is_derived, join)]
        names, is_derived = [*names, join.this.alias_or_name], True
    rewritten = select.copy()
    rewritten.set("joins", None)
    rewritten.set("from_", parsed(f"SELECT * FROM {relation[0]}").args["from_"])
    return rewritten


def _is_asof(join: exp.Join) -> bool:
    return str(join.args.get("method") or "").upper() == "ASOF"


def _require_named(select: exp.Select) -> None:
    for item in select.expressions:
        if isinstance(item, exp.Star):
            raise Refused("in Spark, a query with an ASOF join names its columns, not *")
    for column in select.find_all(exp.Column):
        if not column.table and column.find_ancestor(exp.Select) is select:
            aliases = {item.alias for item in select.expressions if isinstance(item, exp.Alias)}
            if column.name not in aliases:
                raise Refused(
                    f"in Spark, a query with an ASOF join says of which table '{column.name}' is"
                )


def _joined(relation: list[str], names: list[str], is_derived: bool, join: exp.Join) -> str:
    """A relation with one column of structs for each table."""
    right = join.this.alias_or_name
    keys, at, before, is_strict = _condition(join, right)
    own, others = f"`{right}`", [f"`{name}`" for name in names]
    given = [each if is_derived else f"struct({each}.*) AS {each}" for each in others]
    named = [f"{left} AS __k{n}" for n, (left, _) in enumerate(keys)]
    lefts = [*given, f"NULL AS {own}", *named, f"{at} AS {AT}", f"1 AS {SIDE}"]
    named = [f"{key} AS __k{n}" for n, (_, key) in enumerate(keys)]
    # At one moment what is not strictly before comes first.
    rights = [
        *(f"NULL AS {each}" for each in others), f"struct({own}.*) AS {own}", *named,
        f"{before} AS {AT}", f"{2 if is_strict else 0} AS {SIDE}",
    ]  # fmt: skip
    there = " AND ".join(f"{key} IS NOT NULL" for key in (*(k for _, k in keys), before))
    by = ", ".join(f"__k{n}" for n in range(len(keys))) or "NULL"
    found = (
        f"last_value({own}) IGNORE NULLS OVER (PARTITION BY {by} ORDER BY {AT} NULLS FIRST, {SIDE} "
        "ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)"
    )
    listed = ", ".join(others)
    kept = "" if (join.args.get("side") or "").upper() == "LEFT" else f" AND {own} IS NOT NULL"
    return (
        f"(SELECT {listed}, {own} FROM (SELECT {listed}, {found} AS {own}, {SIDE} FROM ("
        f"SELECT {', '.join(lefts)} FROM {' '.join(relation)} UNION ALL "
        f"SELECT {', '.join(rights)} FROM {spark(join.this)} WHERE {there})) "
        f"WHERE {SIDE} = 1{kept}) AS __asof{len(names)}"
    )


def _condition(join: exp.Join, right: str) -> tuple[list[tuple[str, str]], str, str, bool]:
    """Pairs of equal keys, the moment of each side, and whether the right one has to be earlier.

    Raises Refused.
    """
    keys: list[tuple[str, str]] = []
    moments: list[tuple[str, str, bool]] = []
    on = join.args.get("on")
    if on is None:
        raise Refused("in Spark, an ASOF join has a condition ON, not USING")
    for part in on.flatten() if isinstance(on, exp.And) else [on]:
        if not isinstance(part, exp.EQ | exp.GT | exp.GTE | exp.LT | exp.LTE):
            raise Refused(f"in Spark, an ASOF join compares, and does not ask {spark(part)}")
        is_flipped = _is_of(part.this, right)
        left, other = (part.expression, part.this) if is_flipped else (part.this, part.expression)
        if isinstance(part, exp.EQ):
            keys.append((spark(left), spark(other)))
            continue
        is_later = isinstance(part, exp.GT | exp.GTE) != is_flipped
        if not is_later:
            raise Refused("in Spark, an ASOF join looks for the last row before, not the next one")
        moments.append((spark(left), spark(other), isinstance(part, exp.GT | exp.LT)))
    if len(moments) != 1:
        raise Refused("in Spark, an ASOF join compares one pair of times")
    at, before, is_strict = moments[0]
    return keys, at, before, is_strict


def _is_of(node: exp.Expr, table: str) -> bool:
    return any(column.table == table for column in node.find_all(exp.Column))

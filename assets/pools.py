"""Pools: what limits how many steps of all runs train, or use a database of others, at one time."""

import re

TRAINING = "training"


def database_pool(database: str) -> str | None:
    """The pool of a database of the setting `databases`; None where there is none.

    Dagster's names of pools hold letters, digits and underscores.

    >>> database_pool("erp-orders")
    'database_erp_orders'
    """
    return f"database_{re.sub('[^A-Za-z0-9_]', '_', database)}" if database else None

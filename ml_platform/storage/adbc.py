"""Connections by drivers of Arrow Database Connectivity."""

import importlib
from contextlib import suppress
from typing import Any

from ml_platform.storage.connection_strings import words_of


def connect_adbc(where: str) -> Any:
    """A connection of the drivers' manager, which begins a transaction.

    where: `driver=<module or library> uri=…`, and whatever else the driver takes; `entrypoint=…` is
    of a library that does more than that. Raises ImportError without the manager, ValueError for
    what is no list of options, and the manager's errors.
    """
    from adbc_driver_manager import dbapi

    options = words_of(where)
    driver, entrypoint = options.pop("driver", ""), options.pop("entrypoint", None)
    return dbapi.connect(
        driver=_library(driver), entrypoint=entrypoint, db_kwargs=options, autocommit=False
    )


def _library(driver: str) -> str:
    """The library of a driver: that of a Python package, or what is named."""
    with suppress(ImportError):
        package = importlib.import_module(driver)
        for name in ("_driver_path", "driver_path"):
            if hasattr(package, name):
                return str(getattr(package, name)())
    return driver

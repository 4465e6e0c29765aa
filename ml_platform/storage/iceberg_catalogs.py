"""Catalogs of Iceberg tables, as a setting names them."""

from functools import lru_cache
from typing import TYPE_CHECKING

from ml_platform.storage.connection_strings import words_of
from ml_platform.storage.stores import ICEBERG_NAMES

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog


@lru_cache(maxsize=16)
def open_catalog(name: str, where: str) -> "Catalog":
    """The catalog that words such as `uri=sqlite:///… warehouse=s3://…` describe.

    They are pyiceberg's own properties; the options of an object store may be called as those of a
    folder of files are: `key_id`, `secret`, `region`, `endpoint`.
    Raises ImportError where pyiceberg is not installed, ValueError where the words are none.
    """
    from pyiceberg.catalog import load_catalog

    given = words_of(where)
    if "uri" not in given and given.get("type") not in {"glue", "dynamodb"}:
        raise ValueError("says not where its catalog is: uri=… warehouse=…")
    return load_catalog(name, **{ICEBERG_NAMES.get(n, n): value for n, value in given.items()})

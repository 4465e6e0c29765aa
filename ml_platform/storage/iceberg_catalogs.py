"""Catalogs of Iceberg tables, as a setting names them."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ml_platform.storage.connection_strings import words_of
from ml_platform.storage.stores import iceberg_properties

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table


@lru_cache(maxsize=16)
def open_catalog(name: str, where: str) -> "Catalog":
    """The catalog that words such as `uri=sqlite:///… warehouse=s3://…` describe.

    They are pyiceberg's own properties; the options of an object store may be called as those of a
    folder of files are: `key_id`, `secret`, `region`, `endpoint`.
    Raises ImportError where pyiceberg is not installed, ValueError where the words are none.
    """
    given = words_of(where)
    if "uri" not in given and given.get("type") not in {"glue", "dynamodb"}:
        raise ValueError("does not say where its catalog is: uri=… warehouse=…")
    return _loaded(name, iceberg_properties(given))


def _loaded(name: str, properties: Mapping[str, str]) -> "Catalog":
    from pyiceberg.catalog import load_catalog
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return load_catalog(name, **properties)
    except SQLAlchemyError as error:
        # Two that open a new catalog at once both make its tables.
        if "already exists" not in str(error):
            raise
        return load_catalog(name, **properties)


def open_table_at(folder: str) -> "Table":
    """The table in a folder of this machine that no catalog but the folder itself keeps.

    Raises ValueError where its `metadata/version-hint.text` does not say which state holds: the
    newest file of a table that a catalog keeps need not have been committed.
    """
    from pyiceberg.table import StaticTable

    metadata = Path(folder) / "metadata"
    hint = metadata / "version-hint.text"
    if not hint.is_file():
        raise ValueError(
            f"there is no {hint}; name the catalog that keeps the table in the setting databases"
        )
    version = hint.read_text().strip()
    names = (f"v{version}.metadata.json", f"{version}.metadata.json", version)
    found = next((metadata / name for name in names if (metadata / name).is_file()), None)
    if found is None:
        raise ValueError(f"{hint} says '{version}', and there is no {metadata / names[0]}")
    return StaticTable.from_metadata(str(found))

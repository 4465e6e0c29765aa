"""Python packages that come with an extra, where one of them is missing."""

EXTRAS = {
    "deltalake": "delta", "pyiceberg": "iceberg", "pyiceberg_core": "iceberg",
    "adlfs": "iceberg-azure", "azure": "azure", "psycopg": "postgres",
    "adbc_driver_manager": "adbc",
}  # fmt: skip
"""The extra that brings a package."""


def not_installed(error: ImportError) -> str:
    """What is missing, and how to get it.

    >>> not_installed(ModuleNotFoundError("No module named 'deltalake'", name="deltalake"))
    "deltalake is not there; pip install 'ml-platform[delta]'"
    """
    name = (error.name or "").partition(".")[0]
    if not name:
        # What libraries themselves say of others that they need.
        return str(error)
    wanted = f"'ml-platform[{EXTRAS[name]}]'" if name in EXTRAS else name
    return f"{name} is not there; pip install {wanted}"

"""DuckDB's extensions are loaded quickly, and none that was tampered with."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from ml_platform.storage.extensions import connect_with

OPEN = "from ml_platform.storage.extensions import connect_with; connect_with('sqlite_scanner')"


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """A copy of an unpacked extension, below a home of its own."""
    with connect_with("sqlite_scanner") as database:
        query = "SELECT install_path FROM duckdb_extensions() WHERE extension_name = $1"
        found = database.execute(query, ["sqlite_scanner"]).fetchone()
    assert found
    file = Path(found[0])
    copy = tmp_path / file.relative_to(Path.home())
    copy.parent.mkdir(parents=True)
    shutil.copy(file, copy)
    return copy


def opened_in(home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", OPEN],
        env={**os.environ, "HOME": str(home)},
        check=False,
        capture_output=True,
        text=True,
    )


def test_an_extension_with_another_signature_is_refused(unpacked: Path, tmp_path: Path):
    assert opened_in(tmp_path).returncode == 0
    content = bytearray(unpacked.read_bytes())
    content[-1] ^= 1
    unpacked.write_bytes(content)

    refused = opened_in(tmp_path)

    assert refused.returncode == 1
    assert "DuckDB's extension 'sqlite_scanner' cannot be loaded" in refused.stderr
    assert "signature" in refused.stderr


def test_no_connection_loads_unsigned_extensions_afterwards():
    for _ in range(2):
        with connect_with("ducklake", "sqlite_scanner") as database:
            setting = "SELECT current_setting('allow_unsigned_extensions')"
            assert database.execute(setting).fetchone() == (False,)
            with pytest.raises(duckdb.Error, match="Cannot change allow_unsigned_extensions"):
                database.execute("SET allow_unsigned_extensions = true")

"""A small use case of meters, which benchmarks of landing files are about."""

from pathlib import Path

from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase


def declare(folder: Path, spec: str, label: str = "value") -> UseCase:
    """`meters` below a folder's `use_cases`; spec: its YAML, label: SQL over `readings`."""
    case = folder / "use_cases" / "meters"
    case.mkdir(parents=True, exist_ok=True)
    (case / "use_case.yaml").write_text(spec)
    (case / "labels.sql").write_text(
        f"SELECT meter, read_at AS event_time, {label} AS label, known_at FROM readings"
    )
    (case / "model.py").write_text("def build():\n    pass\n")
    return load_use_case(case)

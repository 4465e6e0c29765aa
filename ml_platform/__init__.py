"""A platform for batch and real-time machine learning on tables."""

import os

# That of `typing`, for type checkers, which takes longer to import than all that is here.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from pathlib import Path

    from ml_platform.notebook import OpenedUseCase

# Read once, when a library first loads OpenMP. Its idle threads spin by default: beside other work
# on the same cores, fits and predictions then take many times as long as with one thread.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def open(name: str, project: "str | Path | None" = None) -> "OpenedUseCase":
    """A use case for a notebook: frames, features, scores, backtests and pictures; read only.

    name: of the use case. project: the folder that holds `use_cases` and `data`; by default this
    one or the nearest above it that has use cases. The settings, `ML_PLATFORM_…`, say where else
    lake and registry are.
    Raises SpecError where there is no such use case, SpecErrors where it is broken, PlatformError
    where there are no use cases.
    """
    # On use: it takes seconds to import, and most of who imports the package needs other parts.
    from ml_platform.notebook import open_use_case

    return open_use_case(name, project)

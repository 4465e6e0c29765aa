"""How long rows of a table are kept, and the snapshots that they name."""

from ml_platform.spec.declared import Declared, Length

DAY_SECONDS = 86_400


class Retention(Declared):
    """What a use case declares of one of its tables; what it leaves out is kept for good."""

    rows: Length | None = None
    """How long after a window's end its rows are kept."""
    snapshots: Length | None = None
    """How long the snapshots are kept that rows name, after they were made."""

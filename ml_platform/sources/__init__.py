"""Landing files become rows of sources; what breaks the contract goes to quarantine."""

from ml_platform.sources.arrivals import Arrivals, arrivals, waiting_windows
from ml_platform.sources.ingest import ingest
from ml_platform.sources.ingest_report import IngestReport, WindowCounts
from ml_platform.sources.tables import landings_table, quarantine_table, source_table

__all__ = [
    "Arrivals",
    "IngestReport",
    "WindowCounts",
    "arrivals",
    "ingest",
    "landings_table",
    "quarantine_table",
    "source_table",
    "waiting_windows",
]

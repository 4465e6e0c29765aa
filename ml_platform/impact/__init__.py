"""Impact: what a landed file, a source row, a correction or a model version touched."""

from ml_platform.impact.data_impact import DataImpact, data_impact
from ml_platform.impact.document import data_document, version_document
from ml_platform.impact.files import landed_file
from ml_platform.impact.partitions import TableImpact
from ml_platform.impact.source_rows import source_row
from ml_platform.impact.subjects import RowVersion, SourceSpan, Subject
from ml_platform.impact.versions import Rows, VersionImpact, version_impact

__all__ = [
    "DataImpact",
    "RowVersion",
    "Rows",
    "SourceSpan",
    "Subject",
    "TableImpact",
    "VersionImpact",
    "data_document",
    "data_impact",
    "landed_file",
    "source_row",
    "version_document",
    "version_impact",
]

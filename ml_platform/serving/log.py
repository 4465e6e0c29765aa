"""Lines of JSON on standard error, each with the request it is about."""

import sys
from typing import cast

import structlog
from structlog.typing import FilteringBoundLogger


def open_log() -> FilteringBoundLogger:
    """A log of this process; what is bound with structlog.contextvars stands on each line."""
    return cast(
        FilteringBoundLogger,
        structlog.wrap_logger(
            structlog.PrintLogger(sys.stderr),
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                # Without the values of variables: those of a request may be personal.
                structlog.processors.ExceptionRenderer(
                    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
                ),
                structlog.processors.JSONRenderer(),
            ],
            wrapper_class=structlog.make_filtering_bound_logger("info"),
        ),
    )

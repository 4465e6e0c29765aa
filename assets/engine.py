"""Which engine computes a run, where it is not the one that the use case declares."""

from enum import Enum

import dagster as dg
from pydantic import Field

from ml_platform.spec.use_case import Engine


class EngineName(Enum):
    """The engines that a launch may name."""

    declared = "declared"
    in_process = "in_process"
    spark = "spark"


class EngineConfig(dg.Config):
    """What the launchpad asks of features and predictions."""

    engine: EngineName = Field(
        default=EngineName.declared,
        description="Where to compute: as the use case declares, in the run's process, or by Spark",
    )

    @property
    def chosen(self) -> Engine | None:
        """The engine that the launch names; None where it is the declared one."""
        match self.engine:
            case EngineName.in_process:
                return "in_process"
            case EngineName.spark:
                return "spark"
            case _:
                return None

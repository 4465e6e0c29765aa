"""What all parts of a declaration share: the base class, names, tasks and their metrics."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ml_platform.spec.duration import Duration
from ml_platform.spec.values import longer_than_nothing, named_once

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=48)]
Text = Annotated[str, Field(min_length=1)]
Names = Annotated[tuple[Text, ...], AfterValidator(named_once)]
Entity = Annotated[Names, Field(min_length=1)]
Length = Annotated[Duration, AfterValidator(longer_than_nothing)]
Task = Literal["binary", "multiclass", "regression"]
Metric = Literal[
    "roc_auc", "average_precision", "log_loss", "brier", "calibration_error",
    "mae", "rmse", "r2", "bias", "accuracy", "macro_f1",
]  # fmt: skip
METRICS: dict[Task, tuple[Metric, ...]] = {
    "binary": ("roc_auc", "average_precision", "log_loss", "brier", "calibration_error"),
    "multiclass": ("log_loss", "accuracy", "macro_f1"),
    "regression": ("mae", "rmse", "r2", "bias"),
}
LARGER_IS_BETTER = frozenset({"roc_auc", "average_precision", "r2", "accuracy", "macro_f1"})

# No key in YAML can be called this, so these fields are the loader's alone.
FILLED_IN = "<filled in by the loader>"


class Declared(BaseModel):
    """Base of what YAML declares: unknown keys are mistakes, values never change."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False
    )

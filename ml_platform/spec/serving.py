"""What a use case declares of being served."""

from typing import Annotated, Literal

from pydantic import Field

from ml_platform.spec.declared import Declared, Length, Names
from ml_platform.spec.duration import Duration

Share = Annotated[float, Field(ge=0, le=1)]


class Log(Declared):
    """What is kept of requests: they land as the sources `requests` and `refusals`."""

    sample: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the requests that are kept, all rows of a request or none."""
    hashed: Names = ()
    """Columns of which a keyed hash is kept: equal values stay equal, and cannot be read."""
    left_out: Names = ()
    """Columns that are not kept at all."""


class Review(Declared):
    """Which predictions wait for a person's answer."""

    uncertain: tuple[Share, Share] | None = None
    """Binary labels: probabilities from the first to the second, both included."""
    below: Share | None = None
    """Multiclass labels: the probability of the predicted class is less than this."""
    within: Length = Duration(28, "d")
    """How long a prediction waits: what was answered longer ago is not asked any more."""


class Serving(Declared):
    """How single requests are answered."""

    unknown_categories: Literal["refuse", "accept"] = "refuse"
    """What becomes of a text that did not occur among the rows the model was fitted on."""
    log: Log | None = None
    """Kept where it is declared, also as `log: {}`."""
    review: Review | None = None

    @property
    def known_categories(self) -> bool:
        """Whether only texts are taken that occurred among those rows."""
        return self.unknown_categories == "refuse"

"""What a use case declares of being served."""

from typing import Literal

from ml_platform.spec.declared import Declared


class Serving(Declared):
    """How single requests are answered."""

    unknown_categories: Literal["refuse", "accept"] = "refuse"
    """What becomes of a text that did not occur among the rows the model was fitted on."""

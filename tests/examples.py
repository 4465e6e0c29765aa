"""How many examples a property is tried on."""

from hypothesis import settings


def at_most(number: int) -> int:
    """Of so many examples those that the profile allows: all, or a quarter where it is quick.

    For what takes longer than an example usually does; elsewhere the profile alone counts.
    """
    return max(1, number * settings.default.max_examples // 100)

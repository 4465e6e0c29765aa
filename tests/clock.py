"""A clock that advances when a test says so."""


class Clock:
    """Seconds, by no clock of the machine."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

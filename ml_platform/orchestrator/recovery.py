"""Bringing back code servers that have died: Dagster itself waits for somebody to reload them."""

import time
from collections.abc import Callable

from ml_platform.errors import OrchestratorError, OrchestratorUnavailable
from ml_platform.orchestrator.client import Orchestrator

LOOK_EVERY_SECONDS = 5.0


def keep_loaded(
    orchestrator: Orchestrator, say: Callable[[str], None], up: Callable[[], None]
) -> None:
    """Reload each code location whose server has died, until interrupted.

    say: called with each reload, and with what Dagster said where one failed. Dagster being
    unavailable is not worth a word: it may not be up yet, and where it has ended so does whoever
    started both.
    up: called once, as soon as it answers.
    """
    was_up = False
    while True:
        try:
            without_server = orchestrator.locations_without_server()
            if not was_up:
                was_up = True
                up()
            for location in without_server:
                say(f"the code server of {location} has died; reloading it")
                orchestrator.reload(location)
        except OrchestratorUnavailable:
            pass
        except OrchestratorError as error:
            say(str(error))
        time.sleep(LOOK_EVERY_SECONDS)

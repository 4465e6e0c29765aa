"""How commands end on Ctrl-C: in one line that says what to type next."""

import shlex
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import typer
from typer.core import TyperGroup

from ml_platform.cli import INTERRUPTED

NAME = "ml-platform"
SERVERS = frozenset({"pages", "keep-loaded", "serve"})
"""Commands that Ctrl-C is the usual end of."""
CONTINUES = frozenset({"backfill", "ingest"})
"""Commands that do only what is left when they are called again."""


class Interruptible(TyperGroup):
    """Commands that Ctrl-C ends with one line, which says what to type next."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that the arguments name."""
        with interrupts() as received:
            try:
                return super().invoke(ctx)
            except (Exception, KeyboardInterrupt) as error:
                # DuckDB raises RuntimeError where a query was interrupted.
                if not received and not isinstance(error, KeyboardInterrupt):
                    raise
        typer.echo(_interrupted(ctx.invoked_subcommand), err=True)
        raise typer.Exit(INTERRUPTED)


def program() -> str:
    """The command as it is typed here: by its path where it is not on the PATH."""
    called, found = Path(sys.argv[0]), shutil.which(NAME)
    is_found = found is not None and Path(found).resolve() == called.resolve()
    return str(called) if called.name == NAME and not is_found else NAME


@contextmanager
def interrupts() -> Iterator[list[int]]:
    """The interrupts that are received meanwhile; each raises KeyboardInterrupt as before."""
    received: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:
        # They are ignored in jobs that a shell runs in the background.
        yield received
        return

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield received
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupted(command: str | None) -> str:
    typed = shlex.join([program(), *sys.argv[1:]])
    if command in SERVERS:
        return f"stopped; to start it again: {typed}"
    if command in CONTINUES:
        return f"interrupted; call it again and it continues: {typed}"
    return f"interrupted; to run it again: {typed}"

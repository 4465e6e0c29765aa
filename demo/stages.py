"""What the walk says meanwhile: bars on a terminal, elsewhere a line as each stage begins."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

Done = Callable[[], None]
"""Called each time that one of the parts of a stage is done."""
Begin = Callable[[str, int], Done]
"""Begins a stage; takes its title and how many parts it has."""


@contextmanager
def stages(console: Console) -> Iterator[Begin]:
    """Show stages for as long as the body runs."""
    if not console.is_terminal:
        started = time.monotonic()

        def say(title: str, parts: int) -> Done:
            minutes, seconds = divmod(int(time.monotonic() - started), 60)
            console.print(f"{minutes:02}:{seconds:02} {title} ({parts})", highlight=False)
            return lambda: None

        yield say
        return
    columns = (
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description}", style="bold"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:

        def begin(title: str, parts: int) -> Done:
            task = progress.add_task(title, total=parts)
            return lambda: progress.advance(task)

        yield begin

"""`make demo`: the year in order, then a summary, a picture, and what to type next."""

import resource
import sys
import time
from pathlib import Path

from rich.console import Console

from ml_platform.cli import INTERRUPTED


def main() -> int:
    """Walk through the year; the exit status is 1 where a step failed, 130 after Ctrl-C."""
    console = Console(highlight=False)
    console.print("A year of flights in some minutes. Ctrl-C stops it; started again it continues.")
    try:
        return _walk(console)
    except KeyboardInterrupt:
        console.print("interrupted; to continue: [bold]make demo[/]")
        return INTERRUPTED


def _walk(console: Console) -> int:
    # Imported here: that takes seconds, in which somebody may press Ctrl-C.
    from demo.runs import RunFailed
    from demo.walk import walk
    from ml_platform.errors import PlatformError

    started = time.perf_counter()
    try:
        summary = walk(console, Path("use_cases/flight_delays"))
    except (RunFailed, PlatformError) as error:
        console.print(f"[bold red]error:[/] {error}")
        return 1
    seconds = time.perf_counter() - started
    # In kibibytes: the largest of this process and those that it waited for.
    largest = max(
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    summary.show(console)
    console.print(f"\n{seconds:.0f} seconds, {largest / 2**20:.2f} GiB in the largest process.")
    console.print("Next: [bold]make dev[/], then http://127.0.0.1:3000 shows it all with lineage.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The `ml-platform` command."""

import sys

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 and the number of SIGINT, as shells have it."""


def main() -> None:
    """Run the command line.

    Imported here: an interrupt while it loads ends in a line as well, not in a traceback.
    """
    try:
        from ml_platform.cli.app import main as run

        run()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)

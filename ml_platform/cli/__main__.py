"""`python -m ml_platform.cli`, where the `ml-platform` command is not installed."""

from ml_platform.cli.app import main

main()

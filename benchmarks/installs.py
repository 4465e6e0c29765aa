"""What an installation holds and how long it takes to start, by extras.

`python -m benchmarks.installs` prints it.

Sizes are of what is installed here, links to which make an environment of each. Seconds are CPU
seconds of the second start, when bytecode is there, and say how they compare with Python's own.
"""

import resource
import subprocess
import tempfile
from pathlib import Path

from tests.installations import build_wheel, closure, install, size

MIB = 2**20
INSTALLATIONS = ((), ("serve",), ("monitoring",), ("dagster",), ("dagster", "serve", "monitoring"))
NOTHING = "pass"
STARTS = {
    "import ml_platform": "import ml_platform",
    "use cases": "import ml_platform.cli.app, ml_platform.spec.loading, ml_platform.features",
    "scoring": "import ml_platform.scoring",
}
OF_EXTRAS = {
    "serve": ("the service", "import ml_platform.serving.worker"),
    "monitoring": ("drift pages", "import ml_platform.monitoring.drift_page, evidently.presets"),
    "dagster": ("assets", "import ml_platform_dagster.assets.features"),
}


def main() -> None:
    """Print a line for each installation and each start."""
    with tempfile.TemporaryDirectory() as made:
        wheel = build_wheel(Path(made))
        for extras in INSTALLATIONS:
            found = closure(*extras)
            name = f"ml-platform[{','.join(extras)}]" if extras else "ml-platform"
            print(f"{name}: {len(found)} packages, {size(found.values()) / MIB:.0f} MiB")
            python = install(Path(made) / "-".join(("core", *extras)), wheel, *extras)
            bare = _seconds(python, NOTHING)
            starts = STARTS if not extras else dict(OF_EXTRAS[e] for e in extras)
            for what, code in starts.items():
                seconds = _seconds(python, code)
                print(f"  {what}: {seconds:.2f} s, {seconds / bare:.0f} times Python's own")


def _seconds(python: Path, code: str) -> float:
    """CPU seconds of a process that runs it, the second time."""
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([str(python), "-c", code], cwd=python.parent, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()

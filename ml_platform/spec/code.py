"""Which commit the code of a folder is at."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

PATIENCE_SECONDS = 10
DIRTY = "-dirty"


@dataclass(frozen=True)
class CodeState:
    """A commit of git, and whether the files are those of the commit."""

    commit: str
    is_dirty: bool
    root: Path

    @property
    def version(self) -> str:
        """The commit; with `-dirty` behind it where files differ from it."""
        return f"{self.commit}{DIRTY}" if self.is_dirty else self.commit


def code_state(folder: Path) -> CodeState | None:
    """Where a folder is in its git repository; None where there is no git or no commit."""
    root = _git(folder, "rev-parse", "--show-toplevel")
    commit = _git(folder, "rev-parse", "HEAD")
    if root is None or commit is None:
        return None
    return CodeState(commit, bool(_git(folder, "status", "--porcelain")), Path(root))


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()

"""Images of deploy/images, built by buildah from a Debian of its own, and processes in them.

Nothing is fetched but packages, from where this machine's apt, pip and uv fetch them.
"""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
ANYBODY = "12345:0"
"""A user that no image names, as OpenShift chooses one."""
NEEDED = ("buildah", "mmdebstrap")
needs_buildah = pytest.mark.skipif(
    os.geteuid() != 0 or any(shutil.which(name) is None for name in NEEDED),
    reason="it takes root's rights, and apt-get install buildah mmdebstrap",
)
PACKAGES = "python3,python3-venv,python-is-python3,ca-certificates"
OF_THIS_MACHINE = ("/etc/ssl/certs", "/etc/pip.conf", "/etc/uv", "/opt/wheels", "/opt/pypi",
                   "/opt/pypi-more")  # fmt: skip
"""How packages are found here, where builds are to find them too."""


class Store:
    """Images and containers in a folder of their own."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def buildah(self, *arguments: str) -> str:
        """What buildah says."""
        done = subprocess.run(
            [*self._command(), *arguments], cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{arguments}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
        return done.stdout.strip()

    def bootstrap(self) -> None:
        """The base of all images: Debian with its Python."""
        tar = self.root / "base.tar"
        subprocess.run(
            ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", "bookworm",
             tar],
            check=True,
        )  # fmt: skip
        container = self.buildah("from", "scratch")
        self.buildah("add", "--quiet", container, str(tar), "/")
        self.buildah("commit", "--quiet", "--rm", container, "base:bookworm")
        tar.unlink()

    def build(self, name: str, tag: str = "1") -> None:
        """Build one image; two builds of the same files have the same layers."""
        (self.root / "uv.toml").write_text("system-certs = true\n")
        seen = [path for path in OF_THIS_MACHINE if Path(path).exists()]
        volumes = [word for path in seen for word in ("--volume", f"{path}:{path}:ro")]
        if "/etc/uv" not in seen:
            volumes += ["--volume", f"{self.root / 'uv.toml'}:/etc/uv/uv.toml:ro"]
        self.buildah(
            "build", "--isolation", "chroot", "--network", "host", "--format", "docker",
            "--timestamp", "0", *volumes,
            "--build-arg", "BASE=localhost/base:bookworm",
            "-f", f"deploy/images/{name}.Dockerfile", "-t", f"ml-platform/{name}:{tag}", ".",
        )  # fmt: skip

    def layers(self, name: str, tag: str = "1") -> list[str]:
        """Digests of what an image is made of."""
        return list(self._image(name, tag)["rootfs"]["diff_ids"])

    def command_of(self, name: str) -> list[str]:
        """What containers of an image run by default."""
        return list(self._image(name, "1")["config"]["Cmd"])

    def _image(self, name: str, tag: str) -> dict[str, Any]:
        said = self.buildah("inspect", "--type", "image", f"localhost/ml-platform/{name}:{tag}")
        return dict(json.loads(said)["OCIv1"])

    @contextmanager
    def container(
        self, image: str, settings: Mapping[str, str], mounts: Mapping[Path, str]
    ) -> Iterator["Container"]:
        """A container whose processes are anybody's: they may write to its mounts and to /tmp."""
        name = self.buildah("from", f"localhost/ml-platform/{image}:1")
        variables = [word for each in settings.items() for word in ("--env", "=".join(each))]
        self.buildah("config", "--user", ANYBODY, *variables, name)
        try:
            yield Container(self, name, mounts)
        finally:
            self.buildah("rm", name)

    def _command(self) -> list[str]:
        return ["buildah", "--root", str(self.root / "store"), "--runroot", str(self.root / "run")]


class Container:
    """Processes in one container, on the network of this machine."""

    def __init__(self, store: Store, name: str, mounts: Mapping[Path, str]) -> None:
        self.store = store
        self.name = name
        self.mounts = mounts

    def run(self, *command: str) -> str:
        """What a command says, which has to succeed."""
        done = subprocess.run(self._inside(command), capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
        return done.stdout

    @contextmanager
    def running(self, *command: str, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
        """A process until the block ends."""
        with log.open("ab") as said:
            process = subprocess.Popen(
                self._inside(command), stdout=said, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _inside(self, command: tuple[str, ...]) -> list[str]:
        mounts = [
            word for here, there in self.mounts.items() for word in ("--volume", f"{here}:{there}")
        ]
        return [
            *self.store._command(), "run", "--isolation", "chroot", "--network", "host", *mounts,
            self.name, "--", *command,
        ]  # fmt: skip

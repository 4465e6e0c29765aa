"""The Python environment of Spark's workers as one archive: what predicting a row imports.

A worker has to unpickle the models that this environment trained, so it is given the same versions
of the same packages; what only the platform's servers need stays out.
"""

import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator
from importlib import metadata
from io import BytesIO
from pathlib import Path, PurePosixPath

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ml_platform.errors import EngineFailed
from ml_platform.registry.artifacts import PACKAGES, requirements
from ml_platform.spec.use_case import UseCase

WORKER = "ml_platform.engines.spark.predicting"
"""The module whose functions workers run."""
ONLY_HERE = frozenset({"mlflow", "pyspark"})
"""Models are recorded with it, and the cluster has its own."""
LISTED = (
    "import sys; from importlib import import_module, metadata; "
    "import_module(sys.argv[1]); known = metadata.packages_distributions(); "
    "print('\\n'.join({d for m in sys.modules for d in known.get(m.partition('.')[0], ())}))"
)


def pack_environment(target: Path, use_cases: Iterable[UseCase]) -> tuple[str, ...]:
    """Write the archive, `.tar.gz`; the packages that are in it, with their versions.

    use_cases: whose models have to be unpickled. The interpreter itself is not in it: every machine
    needs the same one at the same path. Raises EngineFailed where a package is not installed.
    """
    named = {*_imported(), *_of_models(use_cases)}
    packages = sorted(_with_needed(named - ONLY_HERE))
    unfinished = target.with_name(f"{target.name}.unfinished")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = PurePosixPath("lib", version, "site-packages")
    # Compressing it harder would take minutes and save a tenth.
    with tarfile.open(unfinished, "w:gz", compresslevel=1) as archive:
        _add_interpreter(archive)
        for package in packages:
            for file, path in _files_of(package):
                archive.add(path, str(site / file), recursive=False)
        _add_platform(archive, site)
    unfinished.replace(target)
    return tuple(f"{name}=={metadata.version(name)}" for name in packages)


def _imported() -> set[str]:
    """Distributions of what a worker imports, in a process that has imported nothing else."""
    done = subprocess.run(
        [sys.executable, "-c", LISTED, WORKER], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise EngineFailed(f"engine spark: a worker cannot start here: {done.stderr.strip()}")
    own = canonicalize_name("ml-platform")
    return {name for name in done.stdout.split() if canonicalize_name(name) != own}


def _of_models(use_cases: Iterable[UseCase]) -> set[str]:
    pinned = {line for case in use_cases for line in requirements(case)}
    return {"cloudpickle", *PACKAGES.values(), *(line.partition("==")[0] for line in pinned)}


def _with_needed(names: Iterable[str]) -> set[str]:
    """The packages and all that they require."""
    found: dict[str, str] = {}
    left = list(names)
    while left:
        name = left.pop()
        key = canonicalize_name(name)
        if key in found or key in ONLY_HERE:
            continue
        try:
            needed = metadata.requires(name) or []
        except metadata.PackageNotFoundError as error:
            raise EngineFailed(f"engine spark: package {name} is not installed") from error
        found[key] = name
        for line in needed:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                left.append(requirement.name)
    return set(found.values())


def _files_of(package: str) -> Iterator[tuple[PurePosixPath, Path]]:
    """Files of a package below `site-packages`, and where they are."""
    for file in metadata.files(package) or ():
        # Scripts lie elsewhere, and name the interpreter of this environment.
        if ".." not in file.parts and "__pycache__" not in file.parts:
            path = Path(str(file.locate()))
            if path.is_file():
                yield file, path


def _add_interpreter(archive: tarfile.TarFile) -> None:
    base = Path(sys._base_executable).resolve()  # type: ignore[attr-defined]
    for name in ("python", "python3"):
        link = tarfile.TarInfo(f"bin/{name}")
        link.type, link.linkname = tarfile.SYMTYPE, str(base)
        archive.addfile(link)
    text = f"home = {base.parent}\ninclude-system-site-packages = false\n".encode()
    settings = tarfile.TarInfo("pyvenv.cfg")
    settings.size = len(text)
    archive.addfile(settings, BytesIO(text))


def _add_platform(archive: tarfile.TarFile, site: PurePosixPath) -> None:
    """The platform itself, also where it is installed as a link to a checkout."""
    root = Path(__file__).parents[2]
    for path in sorted(root.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            archive.add(path, str(site / "ml_platform" / path.relative_to(root)), recursive=False)

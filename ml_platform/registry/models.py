"""Model versions in MLflow: register, find, load."""

import json
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from ml_platform.errors import ModelNotFound
from ml_platform.registry.aliases import read_alias
from ml_platform.registry.artifacts import (
    DIGESTED,
    ESTIMATOR,
    fetch_files,
    read_files,
    read_model,
    write_model,
    write_origins,
)
from ml_platform.registry.tracking import (
    answering,
    end_left_behind,
    ensure_registered_model,
    experiment_id,
    open_client,
)
from ml_platform.registry.versions import ModelVersion, TrainedModel, TrainedVersion
from ml_platform.settings import Settings
from ml_platform.spec.use_case import UseCase
from ml_platform.storage.patience import Patience

if TYPE_CHECKING:
    import mlflow.entities.model_registry
    from mlflow import MlflowClient

    Entry = mlflow.entities.model_registry.ModelVersion

DIGESTS = "digests"
FINGERPRINT = "fingerprint"
LEFT_OUT = "left_out"
"""Tag that names the columns that a version was trained without."""
TOO_GOOD = "too_good"
"""Tag that says why the metric of a version is too good to be true."""
CACHED_VERSIONS = 16
LONGEST_PARAMETER = 500

P = ParamSpec("P")
T = TypeVar("T")


def _asks(
    method: "Callable[Concatenate[Registry, P], T]",
) -> "Callable[Concatenate[Registry, P], T]":
    """A method that raises RegistryUnavailable where MLflow does not answer."""

    @wraps(method)
    def asking(self: "Registry", /, *args: P.args, **kwargs: P.kwargs) -> T:
        def attempt() -> T:
            with answering(self.settings):
                return method(self, *args, **kwargs)

        return self._patience(attempt)

    return asking


class Registry:
    """The model registry; safe to share between threads.

    A use case is one MLflow experiment and one registered model, both of its name. Every method
    raises RegistryUnavailable where MLflow does not answer.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._patience = Patience(settings.server_wait_seconds)
        self._opening = threading.Lock()
        self._caching = threading.Lock()
        self._cache: OrderedDict[tuple[str, int], ModelVersion] = OrderedDict()

    def register(self, use_case: UseCase, trained: TrainedModel, *, tags: Mapping[str, str]) -> int:
        """Record a trained model as a new version, and return its number.

        If anything fails, MLflow keeps a run that is marked as failed, and no version. A run that
        could not be marked, since MLflow was unavailable, is marked when the model is registered
        later.
        """
        was_tried = False

        def attempt() -> int:
            nonlocal was_tried
            with answering(self.settings):
                # It may have been registered, and only the answer did not arrive.
                if was_tried and (made := self._find(use_case, trained.fingerprint)) is not None:
                    return made
                was_tried = True
                return self._register_once(use_case, trained, tags)

        return self._patience(attempt)

    def _register_once(
        self, use_case: UseCase, trained: TrainedModel, tags: Mapping[str, str]
    ) -> int:
        client = self._client
        described = {
            **tags,
            "cutoff": trained.cutoff.isoformat(),
            "trained_from": trained.trained_from.isoformat(),
            "snapshot": str(trained.snapshot),
            "code_version": use_case.code_version,
            FINGERPRINT: trained.fingerprint,
            **({LEFT_OUT: ", ".join(sorted(trained.left_out))} if trained.left_out else {}),
            **({TOO_GOOD: trained.too_good} if trained.too_good else {}),
        }
        experiment = experiment_id(client, self.settings, use_case.name)
        end_left_behind(client, experiment, {FINGERPRINT: trained.fingerprint})
        run = client.create_run(
            experiment,
            tags=described,
            run_name=f"cutoff {trained.cutoff:%Y-%m-%d %H:%M}",
        )
        try:
            version = self._register(use_case, trained, run.info.run_id, described)
        except BaseException:
            # Whatever else fails says less than what failed first.
            with suppress(Exception):
                client.set_terminated(run.info.run_id, status="FAILED")
            raise
        client.set_terminated(run.info.run_id)
        return version

    @_asks
    def find(self, use_case: UseCase, fingerprint: str) -> int | None:
        """The oldest version made from the same inputs, if there is one."""
        return self._find(use_case, fingerprint)

    def _find(self, use_case: UseCase, fingerprint: str) -> int | None:
        found = self._client.search_model_versions(
            f"name = '{use_case.name}' and tags.{FINGERPRINT} = '{fingerprint}'"
        )
        return min((int(entry.version) for entry in found), default=None)

    @_asks
    def trained_at(self, use_case: UseCase, cutoff: datetime) -> int:
        """The newest version of a cutoff; ModelNotFound where none was trained there."""
        moment = cutoff.astimezone(use_case.calendar.timezone).isoformat()
        found = self._client.search_model_versions(
            f"name = '{use_case.name}' and tags.cutoff = '{moment}'"
        )
        if not found:
            raise ModelNotFound(
                f"{use_case.name} has no model version with cutoff {moment}; "
                f"materialise {use_case.name}/model for it first"
            )
        return max(int(entry.version) for entry in found)

    @_asks
    def trained(self, use_case: UseCase) -> list[TrainedVersion]:
        """What every version was trained on, in order; none is loaded, and none of others."""
        found = self._client.search_model_versions(f"name = '{use_case.name}'")
        ours = [entry for entry in found if "cutoff" in entry.tags]
        listed = [TrainedVersion.of(int(entry.version), entry.tags) for entry in ours]
        return sorted(listed, key=lambda each: each.version)

    def last_cutoff(self, use_case: UseCase, but: Collection[int] = ()) -> datetime | None:
        """The latest cutoff that any version was trained at; but: versions that do not count."""
        found = self.trained(use_case)
        return max((each.cutoff for each in found if each.version not in but), default=None)

    @_asks
    def versions(self, use_case: UseCase) -> list[int]:
        """Every version there is, in order."""
        found = self._client.search_model_versions(f"name = '{use_case.name}'")
        return sorted(int(entry.version) for entry in found)

    @_asks
    def made_since(
        self, use_case: UseCase, moment: datetime
    ) -> list[tuple[datetime, dict[str, str]]]:
        """When versions were registered since a moment, and what their tags say."""
        # MLflow's API counts milliseconds.
        since = int(moment.timestamp() * 1000)
        found = self._client.search_model_versions(f"name = '{use_case.name}'")
        return [
            (datetime.fromtimestamp(entry.creation_timestamp / 1000, UTC), dict(entry.tags))
            for entry in found
            if entry.creation_timestamp >= since
        ]

    @_asks
    def load(self, use_case: UseCase, version: int) -> ModelVersion:
        """A version with its estimator; loaded once, then kept.

        Raises ModelNotFound, or ModelRefused where a file is not the one that was registered.
        """
        key = (use_case.name, version)
        with self._caching:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        loaded = self._load(use_case, version)
        with self._caching:
            loaded = self._cache.setdefault(key, loaded)
            while len(self._cache) > CACHED_VERSIONS:
                self._cache.popitem(last=False)
        return loaded

    @_asks
    def pickled(self, use_case: UseCase, version: int) -> bytes:
        """The pickled estimator of a version, as it was registered; for processes elsewhere.

        Whoever unpickles it compares it with `ModelVersion.digest` first.
        """
        with tempfile.TemporaryDirectory() as folder:
            fetch_files(self._entry(use_case, version), folder, self.settings, ESTIMATOR)
            return Path(folder, ESTIMATOR).read_bytes()

    @_asks
    def require_artifacts(self, use_case: UseCase, version: int) -> None:
        """Raise ArtifactLost or ModelRefused where a version's files are not as registered.

        Nothing is unpickled.
        """
        self._files(use_case, self._entry(use_case, version), read_files)

    @_asks
    def plots(self, use_case: UseCase, version: int) -> dict[str, bytes]:
        """The PNG images that were registered with a version, by name."""
        run_id = str(self._entry(use_case, version).run_id)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(self._client.download_artifacts(run_id, "plots", folder))
            return {file.stem: file.read_bytes() for file in sorted(path.glob("*.png"))}

    @_asks
    def set_alias(self, use_case: UseCase, alias: str, version: int) -> None:
        """Point an MLflow alias at a version."""
        self._client.set_registered_model_alias(use_case.name, alias, str(version))

    def alias(self, use_case: UseCase, alias: str) -> int | None:
        """The version that an MLflow alias points to; None where it points to none."""
        return read_alias(self.settings, use_case.name, alias)

    @_asks
    def describe(
        self, use_case: UseCase, version: int, tags: Mapping[str, str], text: str | None = None
    ) -> None:
        """Show tags beside a version, and a text in Markdown; for people, nothing reads them."""
        if text is not None:
            self._client.update_model_version(use_case.name, str(version), description=text)
        for name, value in tags.items():
            self._client.set_model_version_tag(use_case.name, str(version), name, value)

    @_asks
    def tags(self, use_case: UseCase, version: int) -> dict[str, str]:
        """What was recorded about how a version came about."""
        return {k: v for k, v in self._entry(use_case, version).tags.items() if k != DIGESTS}

    @property
    def _client(self) -> "MlflowClient":
        with self._opening:
            return self._opened

    @cached_property
    def _opened(self) -> "MlflowClient":
        return open_client(self.settings)

    def _register(
        self, use_case: UseCase, trained: TrainedModel, run_id: str, tags: dict[str, str]
    ) -> int:
        from mlflow.entities import LoggedModelOutput, Metric, Param

        client = self._client
        started = client.get_run(run_id).info
        parameters = {k: v[:LONGEST_PARAMETER] for k, v in trained.parameters.items()}
        logged = client.create_logged_model(
            started.experiment_id, use_case.name, run_id, tags=tags, params=parameters
        )
        values = [
            Metric(key, value, started.start_time, 0, model_id=logged.model_id, run_id=run_id)
            for key, value in trained.metrics.items()
        ]
        client.log_batch(run_id, values, [Param(k, v) for k, v in parameters.items()])
        with tempfile.TemporaryDirectory() as temporary:
            model, origins = Path(temporary, "model"), Path(temporary, "origins")
            digests = write_model(model, use_case, trained, run_id, logged)
            write_origins(origins, use_case, trained)
            client.log_model_artifacts(logged.model_id, str(model))
            client.log_artifacts(run_id, str(origins))
        client.finalize_logged_model(logged.model_id, "READY")
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
        ensure_registered_model(client, use_case.name, use_case.description)
        entry = client.create_model_version(
            use_case.name,
            # Not `models:/<id>`, which MLflow's SQL store resolves by its global tracking URI.
            source=logged.artifact_location,
            run_id=run_id,
            tags={**tags, DIGESTS: json.dumps(digests)},
            description=trained.card,
            model_id=logged.model_id,
        )
        return int(entry.version)

    def _load(self, use_case: UseCase, version: int) -> ModelVersion:
        entry = self._entry(use_case, version)
        fields = self._files(use_case, entry, read_model)
        return ModelVersion(
            use_case=use_case.name, version=version, run_id=str(entry.run_id), **fields
        )

    def _files(
        self,
        use_case: UseCase,
        entry: "Entry",
        read: Callable[[Path, str, dict[str, str]], dict[str, T]],
    ) -> dict[str, T]:
        """What a function makes of a version's files, its name and their recorded digests."""
        digests = json.loads(entry.tags.get(DIGESTS, "{}"))
        with tempfile.TemporaryDirectory() as folder:
            fetch_files(entry, folder, self.settings, *DIGESTED)
            return read(Path(folder), f"{use_case.name} version {entry.version}", digests)

    def _entry(self, use_case: UseCase, version: int) -> "Entry":
        from mlflow.exceptions import MlflowException

        try:
            return self._client.get_model_version(use_case.name, str(version))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise ModelNotFound(
                f"{use_case.name} has no model version {version}; train one, or look for its "
                f"number in MLflow's registered model '{use_case.name}'"
            ) from None

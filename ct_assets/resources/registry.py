"""The model registry: MLflow, with runs, versions and the aliases `challenger` and `champion`."""

import json
import os
import sqlite3
import tempfile
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from ct_assets.lake.paths import create_database
from ct_assets.resources.lake import HomeResource

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHALLENGER = "challenger"
CHAMPION = "champion"
_ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Where MLflow's tables hold addresses of artifacts."""


@dataclass(frozen=True)
class Version:
    """A registered model version.

    Attributes:
        name: Name of the registered model.
        version: Its number, as text.
        run_id: The run that made it.
        artifact: Path of the serialized model.
        tags: What was noted with it.
    """

    name: str
    version: str
    run_id: str
    artifact: str
    tags: Mapping[str, str]


class RegistryResource(HomeResource):
    """MLflow at `tracking_uri`.

    Attributes:
        tracking_uri: Any MLflow server or database; empty for SQLite under the home.
    """

    tracking_uri: str = ""

    @property
    def uri(self) -> str:
        """Where MLflow keeps runs and versions."""
        return self.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.path}/mlflow/mlflow.db"

    @property
    def file(self) -> Path | None:
        """The database's file; None for another kind of server."""
        return Path(self.uri.removeprefix("sqlite:///")) if self.uri.startswith("sqlite:///") else None

    def register(
        self,
        name: str,
        files: Mapping[str, bytes],
        tags: Mapping[str, str],
        params: Mapping[str, object],
        metrics: Mapping[str, float],
        challenger: bool = True,
    ) -> Version:
        """Log a training and register its model.

        Two that register the same training at the same time may both find it missing: whoever calls this holds a lock.

        Args:
            name: Registered model.
            files: Artifact files by name; `model.skops` is the model.
            tags: Noted with run and version; `training` names the training and is registered once.
            params: Parameters of the run.
            metrics: Figures of the run.
            challenger: Whether the alias is to name it.

        Returns:
            The new version, or the one that the same training registered before.
        """
        client = self.client()
        self._ensure(name)
        known = [
            v for v in client.search_model_versions(f"name='{name}'") if v.tags.get("training") == tags["training"]
        ]
        if known:
            version = known[0]
        else:
            run_id = self._log(name, files, tags, params, metrics)
            source = client.get_run(run_id).info.artifact_uri + "/model"
            version = client.create_model_version(name, source=source, run_id=run_id, tags=dict(tags))
        if challenger:
            client.set_registered_model_alias(name, CHALLENGER, version.version)
        return self._version(version)

    def get(self, name: str, alias: str) -> Version | None:
        """The version that an alias points to; None when there is none.

        Raises:
            MlflowException: The registry does not answer.
        """
        from mlflow.exceptions import MlflowException

        try:
            return self._version(self.client().get_model_version_by_alias(name, alias))
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise

    def version(self, name: str, number: str) -> Version:
        """A version by its number.

        Raises:
            LookupError: There is none.
        """
        from mlflow.exceptions import MlflowException

        try:
            return self._version(self.client().get_model_version(name, number))
        except MlflowException as error:
            raise LookupError(f"{name} has no version {number!r} in the registry: {error}") from error

    def point(self, name: str, alias: str, version: str) -> None:
        """Move an alias. Whoever calls this has recorded the decision."""
        self.client().set_registered_model_alias(name, alias, version)

    def unpoint(self, name: str, alias: str) -> None:
        """Take an alias away. Whoever calls this has recorded the decision."""
        self.client().delete_registered_model_alias(name, alias)

    def note(self, version: Version, metrics: Mapping[str, float], tags: Mapping[str, str]) -> None:
        """Add figures and tags to the run and the version of a model."""
        from mlflow.entities import Metric, RunTag

        client = self.client()
        client.log_batch(
            version.run_id,
            metrics=[Metric(k, v, 0, 0) for k, v in metrics.items()],
            tags=[RunTag(k, v) for k, v in tags.items()],
        )
        for key, value in tags.items():
            client.set_model_version_tag(version.name, version.version, key, value)

    def client(self) -> "MlflowClient":
        """The MLflow client, opened once per process."""
        return _client(self.uri, self._artifacts)

    @property
    def _artifacts(self) -> Path:
        """Where artifacts lie, unless a server says otherwise."""
        return self.path / "mlflow" / "artifacts"

    def _ensure(self, name: str) -> str:
        """The experiment of a model, made on first use with its registered model."""
        client = self.client()
        experiment = client.get_experiment_by_name(name)
        if experiment is not None:
            return experiment.experiment_id
        location = (self._artifacts / name).as_uri() if self.uri.startswith("sqlite:") else None
        # The experiment comes last and stands for both; a crash in between leaves the registered model.
        if not client.search_registered_models(f"name='{name}'"):
            client.create_registered_model(name)
        return client.create_experiment(name, artifact_location=location)

    def _log(
        self,
        name: str,
        files: Mapping[str, bytes],
        tags: Mapping[str, str],
        params: Mapping[str, object],
        metrics: Mapping[str, float],
    ) -> str:
        from mlflow.entities import Metric, Param

        client = self.client()
        run = client.create_run(self._ensure(name), run_name=tags["training"], tags=dict(tags))
        client.log_batch(
            run.info.run_id,
            params=[Param(k, json.dumps(v, default=str)[:5000]) for k, v in params.items()],
            metrics=[Metric(k, v, 0, 0) for k, v in metrics.items()],
        )
        with tempfile.TemporaryDirectory() as folder:
            for file, payload in files.items():
                Path(folder, file).write_bytes(payload)
            client.log_artifacts(run.info.run_id, folder, "model")
        client.set_terminated(run.info.run_id)
        return run.info.run_id

    def _version(self, found: object) -> Version:
        source: str = found.source  # type: ignore[attr-defined]
        parts = urlsplit(source)
        tags = dict(found.tags)  # type: ignore[attr-defined]
        local = Path(url2pathname(parts.path)) if parts.scheme in ("file", "") else self._copy(source, tags)
        return Version(
            name=found.name,  # type: ignore[attr-defined]
            version=str(found.version),  # type: ignore[attr-defined]
            run_id=found.run_id,  # type: ignore[attr-defined]
            artifact=str(local / "model.skops"),
            tags=tags,
        )

    def _copy(self, source: str, tags: Mapping[str, str]) -> Path:
        """A remote artifact's copy under the home, downloaded once: its digest names it, and every load checks it."""
        from mlflow.artifacts import download_artifacts

        kept = self.path / "models" / tags["artifact_digest"]
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=kept.parent) as aside:
                downloaded = Path(download_artifacts(source, dst_path=aside, tracking_uri=self.uri))
                with suppress(OSError):  # of two processes at once, the first one's stays
                    downloaded.replace(kept)
        return kept


@cache
def _client(uri: str, artifacts: Path) -> "MlflowClient":
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import logging

    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    from mlflow import MlflowClient

    if uri.startswith("sqlite:///"):
        # MLflow's migrations are no transaction: a database that a crash leaves between two of them is lost.
        path = Path(uri.removeprefix("sqlite:///"))
        create_database(path, lambda aside: _create_tables(f"sqlite:///{aside / path.name}"))
        if path.parent == artifacts.parent:
            _follow(path, artifacts)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _follow(database: Path, artifacts: Path) -> None:
    """Correct the addresses of artifacts in a home that was moved: MLflow knows absolute ones only."""
    ending, wanted = "/mlflow/artifacts/", artifacts.as_uri() + "/"
    with closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as connection:
        found = [row[0] or "" for row in connection.execute("SELECT artifact_location FROM experiments")]
        roots = {each[: each.index(ending) + len(ending)] for each in found if ending in each}
        for old in roots - {wanted}:
            connection.execute("BEGIN IMMEDIATE")
            for table, column in _ADDRESSES:
                moved = f"{column} = ?1 || substr({column}, length(?2) + 1)"
                connection.execute(f"UPDATE {table} SET {moved} WHERE instr({column}, ?2) = 1", (wanted, old))
            connection.execute("COMMIT")


def _create_tables(uri: str) -> None:
    from mlflow.store.db.utils import _initialize_tables, create_sqlalchemy_engine

    engine = create_sqlalchemy_engine(uri)
    _initialize_tables(engine)
    engine.dispose()
